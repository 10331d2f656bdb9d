package policysidecar_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

func TestEveryReasonOfTheContractIsTriedAgainAsItSays(t *testing.T) {
	rolledBack := map[string]bool{"TRANSACTION_ROLLED_BACK": true, "TRANSACTION_LOST": true, "TRANSACTION_ELSEWHERE": true}
	values := pb.ErrorReason(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		reason := string(values.Get(i).Name())
		meaning := proto.GetExtension(values.Get(i).Options().(*descriptorpb.EnumValueOptions), pb.E_Meaning).(*pb.ReasonMeaning)
		told := &policysidecar.Error{Reason: reason}
		must(t, told.Code.UnmarshalJSON([]byte(`"`+meaning.Code+`"`)))
		if meaning.Retry {
			told.RetryAfter = time.Millisecond
		}
		if told.Retriable() != (meaning.Retry || rolledBack[reason]) {
			t.Errorf("%s: %v", reason, told.Retriable())
		}
	}
	// Of a connection that went away there is no reason.
	if away := (&policysidecar.Error{Code: codes.Unavailable}); !away.Retriable() {
		t.Error("a connection that went away")
	}
}

// Story: this client and another tried four times, the others five, where one page promised one rule.
func TestACallOutsideTransactionsAndAStreamAreTriedFiveTimes(t *testing.T) {
	var calls atomic.Int32
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		calls.Add(1)
		return status.Error(codes.Unavailable, "the database is away")
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	away := connect(t, listener.Addr().String(), policysidecar.Options{})
	if _, err := away.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{}); !errors.Is(err, policysidecar.ErrUnavailable) {
		t.Errorf("ended with %v", err)
	}
	if made := calls.Swap(0); made != 5 {
		t.Errorf("%d calls", made)
	}
	for _, err := range policysidecar.Rows(ctx, away.PolicyEngine().StreamRiskCeilings, &pb.StreamRiskCeilingsRequest{}) {
		if !errors.Is(err, policysidecar.ErrUnavailable) {
			t.Errorf("ended with %v", err)
		}
	}
	if made := calls.Load(); made != 5 {
		t.Errorf("%d streams", made)
	}
}

func TestRunTriesAgainWhatWasRolledBackAndNothingElse(t *testing.T) {
	_, address := serve(t, "SIDECAR_GRPC_LISTEN="+socket(t))
	other := connect(t, address, policysidecar.Options{})
	ceilings, err := client.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	must(t, err)
	ceiling := ceilings.RiskCeilings[0]
	count := func(services policysidecar.Services, value float64) error {
		_, err := services.PolicyEngine().UpdateRiskCeiling(ctx, &pb.UpdateRiskCeilingRequest{
			CeilingId: ceiling.Id, Updates: &pb.RiskCeilingPatch{CurrentValue: &value}, UpdateMask: mask("current_value"),
		})
		return err
	}
	insert := func(tx *policysidecar.Tx, id string) error {
		_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
		return err
	}
	id, mine := policysidecar.NewUUID(), errors.New("mine")
	cases := []struct {
		what  string
		again bool
		// fails does what fails with that.
		fails func(ctx context.Context, tx *policysidecar.Tx) error
	}{
		{"SERIALIZATION_FAILURE", true, func(_ context.Context, tx *policysidecar.Tx) error {
			must(t, count(client.SingleUse().Services, 1))
			return count(tx.Services, 2)
		}},
		{"TRANSACTION_ROLLED_BACK", true, func(_ context.Context, tx *policysidecar.Tx) error {
			_, err := client.Transactions().Rollback(ctx, &pb.RollbackRequest{TransactionId: tx.ID()})
			must(t, err)
			return insert(tx, policysidecar.NewUUID())
		}},
		{"TRANSACTION_ELSEWHERE", true, func(ctx context.Context, tx *policysidecar.Tx) error {
			_, err := other.Transactions().Get(ctx, &pb.TransactionServiceGetRequest{TransactionId: tx.ID()})
			return err
		}},
		{"TRANSACTION_EXPIRED", false, func(ctx context.Context, tx *policysidecar.Tx) error {
			<-ctx.Done()
			return ctx.Err()
		}},
		{"TRANSACTION_UNKNOWN", false, func(ctx context.Context, tx *policysidecar.Tx) error {
			_, err := client.Transactions().Get(ctx, &pb.TransactionServiceGetRequest{TransactionId: "none"})
			return err
		}},
		{"UNIQUE_VIOLATION", false, func(ctx context.Context, tx *policysidecar.Tx) error {
			must(t, insert(tx, id))
			return insert(tx, id)
		}},
		{"TRANSACTION_ABORTED", false, func(ctx context.Context, tx *policysidecar.Tx) error {
			must(t, insert(tx, id))
			if insert(tx, id) == nil {
				t.Error("twice")
			}
			return insert(tx, policysidecar.NewUUID())
		}},
		{"INVALID_REQUEST", false, func(ctx context.Context, tx *policysidecar.Tx) error { return insert(tx, "no uuid .") }},
		{"", false, func(ctx context.Context, tx *policysidecar.Tx) error { return mine }},
	}
	for _, each := range cases {
		t.Run(each.what, func(t *testing.T) {
			options := policysidecar.TxOptions{Isolation: pb.IsolationLevel_ISOLATION_LEVEL_REPEATABLE_READ}
			if each.what == "TRANSACTION_EXPIRED" {
				options.TotalLease = 200 * time.Millisecond
			}
			attempts := 0
			var failed error
			err := client.Run(ctx, options, func(ctx context.Context, tx *policysidecar.Tx) error {
				if attempts++; attempts > 1 {
					return nil
				}
				failed = each.fails(ctx, tx)
				return failed
			})
			var told *policysidecar.Error
			if each.again {
				must(t, err)
				if errors.As(failed, &told) && told.Reason != each.what || told == nil && !errors.Is(failed, context.Canceled) {
					t.Errorf("failed with %v", failed)
				}
			} else if errors.As(err, &told) && told.Reason != each.what || told == nil && err != mine {
				t.Errorf("ended with %v", err)
			}
			if again := attempts > 1; again != each.again {
				t.Errorf("%d attempts after %v", attempts, failed)
			}
		})
	}
}
