// Command interop puts gRPC's interoperability cases to a server, with the functions of gRPC's own client.
//
//	interop descriptors          writes a FileDescriptorSet of what the cases call
//	interop host:port case...    runs the cases, names each that passed, and ends with 1 at the first that did not
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const longest = 30 * time.Second

type testCase = func(context.Context, grpc_testing.TestServiceClient, ...grpc.CallOption)

var cases = map[string]testCase{
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"custom_metadata":             interop.DoCustomMetadata,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
}

func run(ctx context.Context, connection *grpc.ClientConn, name string) {
	switch name {
	case "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, connection)
	case "unimplemented_service":
		interop.DoUnimplementedService(ctx, grpc_testing.NewUnimplementedServiceClient(connection))
	default:
		do, known := cases[name]
		if !known {
			log.Fatalf("there is no case %s", name)
		}
		do(ctx, grpc_testing.NewTestServiceClient(connection), grpc.WaitForReady(true))
	}
}

func descriptors() error {
	file := grpc_testing.File_grpc_testing_test_proto
	set := &descriptorpb.FileDescriptorSet{}
	for i := range file.Imports().Len() {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file.Imports().Get(i).FileDescriptor))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	bytes, err := proto.Marshal(set)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(bytes)
	return err
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "descriptors" {
		if err := descriptors(); err != nil {
			log.Fatal(err)
		}
		return
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range os.Args[2:] {
		ctx, cancel := context.WithTimeout(context.Background(), longest)
		run(ctx, connection, name)
		cancel()
		fmt.Println("passed", name)
	}
}
