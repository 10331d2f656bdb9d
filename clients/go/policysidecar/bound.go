package policysidecar

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
)

// singleUse is the value of the header `transaction` for a call that is its own.
const singleUse = "single-use"

const keyHeader = "idempotency-key"

// bound is a connection whose calls all belong to one transaction, or to none: it alone writes the headers.
type bound struct {
	client *Client
	// header is the value of `transaction`; empty: none.
	header string
}

// Invoke makes a unary call, with a deadline, and again where that is safe.
func (b bound) Invoke(ctx context.Context, method string, request, response any, options ...grpc.CallOption) error {
	ctx, cancel := b.client.bounded(ctx)
	defer cancel()
	outgoing := b.headers(ctx)
	key := b.keyOf(outgoing, method)
	unanswered := false
	attempt := func() error {
		err := errorOf(ctx, b.client.connection.Invoke(outgoing, method, request, response, options...))
		told, ok := err.(*Error)
		if key == "" || !ok {
			return err
		}
		// A later attempt that was refused says nothing of an earlier one.
		if unanswered = unanswered || told.Reason == "" || told.unanswered(); !unanswered {
			return err
		}
		keyed := *told
		keyed.IdempotencyKey = key
		return &keyed
	}
	if key == "" && (b.inside() || !idempotent(method)) {
		return attempt()
	}
	return retry(ctx, callAttempts, (*Error).repeats, attempt)
}

// NewStream begins a stream, which ends with its context, or by Rows. Outside transactions it goes on where it is cut.
func (b bound) NewStream(ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	open := func() (grpc.ClientStream, error) { return b.stream(ctx, description, method, options) }
	stream, err := open()
	if err != nil || b.client.cutStreamsEnd || b.inside() {
		return stream, err
	}
	return &resuming{ClientStream: stream, ctx: ctx, open: open}, nil
}

// inside tells whether the calls are those of an open transaction.
func (b bound) inside() bool { return b.header != "" && b.header != singleUse }

func (b bound) stream(ctx context.Context, description *grpc.StreamDesc, method string, options []grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	// A stream has no deadline of its own, and shall not wait for a connection without end.
	late := &Error{Code: codeDeadline, Message: fmt.Sprintf("no connection within %v", b.client.timeout)}
	timer := time.AfterFunc(b.client.timeout, cancel)
	stream, err := b.client.connection.NewStream(b.headers(ctx), description, method, options...)
	if !timer.Stop() {
		cancel()
		return nil, late
	}
	if err != nil {
		cancel()
		return nil, errorOf(ctx, err)
	}
	return &boundStream{ClientStream: stream, cancel: cancel}, nil
}

// boundStream tells errors as Error, and lets go of its context at its end.
type boundStream struct {
	grpc.ClientStream
	cancel context.CancelFunc
}

func (s *boundStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil {
		return nil
	}
	told := errorOf(s.Context(), err)
	s.cancel()
	return told
}

// headers are those of the caller's context, but for what says where a call belongs.
func (b bound) headers(ctx context.Context) context.Context {
	headers, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		headers = metadata.MD{}
	}
	headers.Delete("transaction")
	if b.header != "" {
		headers.Set("transaction", b.header)
	}
	if b.header == singleUse && len(headers.Get(keyHeader)) == 0 {
		headers.Set(keyHeader, NewUUID())
	}
	if b.client.documents != "" && len(headers.Get(documentsHeader)) == 0 {
		headers.Set(documentsHeader, string(b.client.documents))
	}
	if b.client.token != "" {
		headers.Set("authorization", "Bearer "+b.client.token)
	}
	return metadata.NewOutgoingContext(ctx, headers)
}

// bounded gives a context without deadline that of the client.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// keyOf is the key under which a call takes effect once, that of a write, or an Execute, which is its own transaction; else empty.
func (b bound) keyOf(outgoing context.Context, method string) string {
	writes := proto.GetExtension(optionsOf(method), pb.E_Access) == pb.MethodAccess_METHOD_ACCESS_WRITE
	if b.inside() || !writes && method != pb.TransactionService_Execute_FullMethodName {
		return ""
	}
	headers, _ := metadata.FromOutgoingContext(outgoing)
	return strings.Join(headers.Get(keyHeader), "")
}

// idempotent tells whether a call that may have been made can be made again for what it does.
func idempotent(method string) bool {
	return optionsOf(method).GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}

func optionsOf(method string) *descriptorpb.MethodOptions {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil
	}
	return descriptor.Options().(*descriptorpb.MethodOptions)
}

// NewUUID is a random UUID, for the keys of rows that their caller chooses.
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
