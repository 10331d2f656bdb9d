package main

import (
	"context"
	"testing"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/sidecartest"
)

func TestWhatIsDecidedIsRecorded(t *testing.T) {
	_, client := sidecartest.Start(t)
	for amount, want := range map[float64]string{0: "allow", 1e9: "block"} {
		decision, err := Decide(context.Background(), client, "cost_per_hour", amount)
		if err != nil || decision != want {
			t.Errorf("%v, %v", decision, err)
		}
	}
	violations, err := client.PolicyEngine().FetchViolations(context.Background(), &pb.FetchViolationsRequest{})
	if err != nil || len(violations.Violations) != 1 {
		t.Errorf("%v, %v", violations, err)
	}
}
