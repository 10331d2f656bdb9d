package policysidecar_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

var nan = math.NaN()

func TestACommitWhoseAnswerIsLostIsFoundCommitted(t *testing.T) {
	between, id := newProxy(t), policysidecar.NewUUID()
	attempts := 0
	ended := make(chan error, 1)
	through := connect(t, between.address, policysidecar.Options{})
	go func() {
		ended <- through.Run(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
			attempts++
			_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
			between.keep(false, true)
			return err
		})
	}()
	eventually(t, "committed", func() bool { return stored(t, id) })
	between.cut()
	must(t, <-ended)
	if attempts != 1 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestACommitThatNeverArrivedIsTriedAgain(t *testing.T) {
	between, id := newProxy(t), policysidecar.NewUUID()
	attempts := 0
	must(t, connect(t, between.address, policysidecar.Options{}).Run(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
		if attempts++; attempts == 1 {
			between.keep(true, false)
			time.AfterFunc(100*time.Millisecond, between.cut)
		}
		return err
	}))
	if attempts != 2 || !stored(t, id) {
		t.Errorf("%d attempts, stored %v", attempts, stored(t, id))
	}
}

func TestAnOutcomeThatNobodyTellsIsUnknown(t *testing.T) {
	between := newProxy(t)
	through := connect(t, between.address, policysidecar.Options{Timeout: time.Second})
	id := ""
	err := through.Run(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		id = tx.ID()
		between.keep(false, true)
		return nil
	})
	told := wants(t, err, policysidecar.ErrOutcomeUnknown)
	if told.TransactionID != id || told.Retriable() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v of %s", told, id)
	}
}

func TestAWriteWhoseAnswerIsLostTakesEffectOnce(t *testing.T) {
	between, policy := newProxy(t), policysidecar.NewUUID()
	through := connect(t, between.address, policysidecar.Options{})
	_, err := through.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	must(t, err)
	total := func() *pb.FetchTemporalMetricTotalResponse {
		answer, err := client.PolicyEngine().FetchTemporalMetricTotal(ctx, &pb.FetchTemporalMetricTotalRequest{PolicyId: policy, WindowSeconds: new(int64(3600))})
		must(t, err)
		return answer
	}
	between.keep(false, true)
	ended := make(chan error, 1)
	go func() {
		_, err := through.SingleUse().PolicyEngine().RecordTemporalMetricEvent(ctx, &pb.RecordTemporalMetricEventRequest{
			Event: &pb.NewTemporalMetricEvent{PolicyId: policy, Metric: new("cost"), Value: new(2.5), OccurredAt: timestamppb.Now()},
		})
		ended <- err
	}()
	eventually(t, "recorded", func() bool { return total().EventCount > 0 })
	between.cut()
	must(t, <-ended)
	if got := total(); got.EventCount != 1 || got.Total != 2.5 {
		t.Errorf("%v", got)
	}
}

// The client had made the key, and thrown it away: nobody could ask whether the write had taken effect.
func TestAWriteWhoseAnswerNeverCameIsAskedForByItsKey(t *testing.T) {
	between, id := newProxy(t), policysidecar.NewUUID()
	through := connect(t, between.address, policysidecar.Options{})
	_, err := through.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	must(t, err)
	between.keep(false, true)
	impatient, leave := context.WithCancel(ctx)
	defer leave()
	ended := make(chan error, 1)
	go func() {
		_, err := through.SingleUse().PolicyEngine().InsertPolicyVersion(impatient, version(id))
		ended <- err
	}()
	eventually(t, "stored", func() bool { return stored(t, id) })
	leave()
	told := wants(t, <-ended, context.Canceled)
	subject := &pb.GetOutcomeRequest_IdempotencyKey{IdempotencyKey: told.IdempotencyKey}
	answer, err := client.Transactions().GetOutcome(ctx, &pb.GetOutcomeRequest{Subject: subject})
	must(t, err)
	if answer.Outcome != pb.Outcome_OUTCOME_COMMITTED {
		t.Errorf("%v of %q", answer.Outcome, told.IdempotencyKey)
	}
}

func TestACallerBringsAKeyOfItsOwn(t *testing.T) {
	policy, keyed := policysidecar.NewUUID(), policysidecar.WithIdempotencyKey(ctx, policysidecar.NewUUID())
	event := &pb.NewTemporalMetricEvent{PolicyId: policy, Metric: new("cost"), Value: new(2.5), OccurredAt: timestamppb.Now()}
	for range 2 {
		_, err := client.SingleUse().PolicyEngine().RecordTemporalMetricEvent(keyed, &pb.RecordTemporalMetricEventRequest{Event: event})
		must(t, err)
	}
	total, err := client.PolicyEngine().FetchTemporalMetricTotal(ctx, &pb.FetchTemporalMetricTotalRequest{PolicyId: policy, WindowSeconds: new(int64(3600))})
	must(t, err)
	if total.EventCount != 1 {
		t.Errorf("%d events", total.EventCount)
	}
	_, err = client.SingleUse().PolicyEngine().InsertPolicyVersion(keyed, version(policysidecar.NewUUID()))
	if told := wants(t, err, policysidecar.ErrPrecondition); told.Reason != "IDEMPOTENCY_KEY_REUSED" || told.IdempotencyKey != "" {
		t.Errorf("%v of %q", told, told.IdempotencyKey)
	}
}

// One that nobody knew of would have kept its locks until its lease ended.
func TestATransactionThatMayBePreparedIsRolledBack(t *testing.T) {
	between, id := newProxy(t), policysidecar.NewUUID()
	transaction := ""
	err := connect(t, between.address, policysidecar.Options{}).InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		transaction = tx.ID()
		must(t, insert(ctx, tx, id))
		between.keep(false, true)
		impatient, leave := context.WithCancel(ctx)
		defer leave()
		ended := make(chan error, 1)
		go func() {
			_, err := tx.Prepare(impatient, 0)
			ended <- err
		}()
		eventually(t, "prepared", func() bool { return isPrepared(t, transaction) })
		leave()
		wants(t, <-ended, context.Canceled)
		between.cut()
		return nil
	})
	if told := wants(t, err, context.Canceled); !strings.Contains(told.Message, "prepared") {
		t.Errorf("%v", told)
	}
	if isPrepared(t, transaction) || stored(t, id) {
		t.Errorf("prepared %v, stored %v", isPrepared(t, transaction), stored(t, id))
	}
}

func TestASidecarThatIsKilledIsToldAndCallsWorkWhenItIsBack(t *testing.T) {
	address := socket(t)
	first, _ := serve(t, "SIDECAR_GRPC_LISTEN="+address)
	local := connect(t, address, policysidecar.Options{})
	one, two := policysidecar.NewUUID(), policysidecar.NewUUID()
	err := local.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		must(t, insert(ctx, tx, one))
		must(t, first.Process.Kill())
		first.Wait()
		<-ctx.Done()
		return insert(ctx, tx, one)
	})
	wants(t, err, policysidecar.ErrUnavailable)
	serve(t, "SIDECAR_GRPC_LISTEN="+address)
	must(t, local.Run(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error { return insert(ctx, tx, two) }))
	if stored(t, one) || !stored(t, two) {
		t.Errorf("stored %v and %v", stored(t, one), stored(t, two))
	}
}
