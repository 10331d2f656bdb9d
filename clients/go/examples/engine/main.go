// An engine that holds one action against the risk ceilings, and records what it decided: the evaluation, and a violation of
// each ceiling that the action would breach, all or nothing.
//
//	go run policies.hoc/examples/engine -metric cost_per_hour -amount 5000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

func main() {
	metric := flag.String("metric", "cost_per_hour", "what the action adds to")
	amount := flag.Float64("amount", 5000, "how much it adds")
	flag.Parse()
	client, err := policysidecar.Connect("", policysidecar.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	decision, err := Decide(ctx, client, *metric, *amount)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(decision)
}

// Decide reads, judges and records in one transaction. A conflict, or a sidecar that goes away, makes it begin again.
func Decide(ctx context.Context, client *policysidecar.Client, metric string, amount float64) (decision string, err error) {
	options := policysidecar.TxOptions{Isolation: pb.IsolationLevel_ISOLATION_LEVEL_SERIALIZABLE, Label: "engine"}
	err = client.Run(ctx, options, func(ctx context.Context, tx *policysidecar.Tx) error {
		ceilings, err := tx.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
		if err != nil {
			return err
		}
		var breached []*pb.RiskCeiling
		for _, ceiling := range ceilings.RiskCeilings {
			if ceiling.Metric == metric && ceiling.CurrentValue+amount > ceiling.MaxValue {
				breached = append(breached, ceiling)
			}
		}
		decision = "allow"
		if len(breached) > 0 {
			decision = "block"
		}
		action, evaluation, now := "execute", policysidecar.NewUUID(), timestamppb.Now()
		asked, err := structpb.NewValue(map[string]any{"metric": metric, "amount": amount})
		if err != nil {
			return err
		}
		if _, err := tx.PolicyEngine().InsertEvaluation(ctx, &pb.InsertEvaluationRequest{
			EvaluationId: evaluation, ActionType: &action, Decision: &decision, RequestContext: asked,
			PoliciesChecked: new(int32(len(ceilings.RiskCeilings))), EvaluatedAt: now,
		}); err != nil {
			return err
		}
		for _, ceiling := range breached {
			if _, err := tx.PolicyEngine().InsertViolation(ctx, &pb.InsertViolationRequest{
				ViolationId: policysidecar.NewUUID(), EvaluationId: &evaluation, PolicyName: &ceiling.Name,
				ViolationType: new("risk_ceiling_breach"), Severity: new(0.8), Evidence: asked,
				Description:      new(fmt.Sprintf("%g more of %s is above %g", amount, metric, ceiling.MaxValue)),
				RoutedToGovernor: new(false), DetectedAt: now,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return decision, err
}
