// Calls a sidecar through the stubs, beside grpc-go's own packages of health and error details.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	_ "google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	policies "example.com/engine/gen/hoc/cus/policies/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	call := context.Background()
	health, err := grpc_health_v1.NewHealthClient(connection).Check(call, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(health.Status)
	read := policies.NewPolicyRulesReadServiceClient(connection)
	rules, err := read.FetchPolicyRules(call, &policies.FetchPolicyRulesRequest{TenantId: "a"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(rules.Items))
	_, err = policies.NewPolicyRulesServiceClient(connection).Flush(call, &policies.FlushRequest{})
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Println(info.Reason)
		}
	}
}
