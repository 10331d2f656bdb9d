package policysidecar_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
)

func TestTwoWritesAreCommittedTogether(t *testing.T) {
	one, two := policysidecar.NewUUID(), policysidecar.NewUUID()
	must(t, client.InTransaction(ctx, policysidecar.TxOptions{Label: "two"}, func(ctx context.Context, tx *policysidecar.Tx) error {
		for _, id := range []string{one, two} {
			if _, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id)); err != nil {
				return err
			}
		}
		if stored(t, one) {
			t.Error("seen before the commit")
		}
		return nil
	}))
	if !stored(t, one) || !stored(t, two) {
		t.Error("not stored")
	}
}

func TestATransactionIsWhatItsOptionsSay(t *testing.T) {
	options := policysidecar.TxOptions{
		Isolation: pb.IsolationLevel_ISOLATION_LEVEL_SERIALIZABLE, ReadOnly: true, Deferrable: true, TotalLease: 90 * time.Second,
		Label: "as its options say",
	}
	err := client.InTransaction(ctx, options, func(ctx context.Context, tx *policysidecar.Tx) error {
		got, err := client.Transactions().Get(ctx, &pb.TransactionServiceGetRequest{TransactionId: tx.ID()})
		must(t, err)
		is := got.Transaction
		if is.IsolationLevel != options.Isolation || !is.ReadOnly || !is.Deferrable || is.TotalLease.AsDuration() != options.TotalLease ||
			is.Label != options.Label {
			t.Errorf("%v", is)
		}
		_, err = tx.PolicyEngine().InsertPolicyVersion(ctx, version(policysidecar.NewUUID()))
		return err
	})
	if told := wants(t, err, policysidecar.ErrPrecondition); told.Reason != "READ_ONLY_TRANSACTION" {
		t.Errorf("%v", told)
	}
}

func TestRunTriesAsOftenAsItIsTold(t *testing.T) {
	tries := 0
	err := client.Run(ctx, policysidecar.TxOptions{Attempts: 3}, func(ctx context.Context, tx *policysidecar.Tx) error {
		tries++
		_, err := client.Transactions().Rollback(ctx, &pb.RollbackRequest{TransactionId: tx.ID()})
		must(t, err)
		_, err = tx.PolicyEngine().InsertPolicyVersion(ctx, version(policysidecar.NewUUID()))
		return err
	})
	wants(t, err, policysidecar.ErrTransactionEnded)
	if tries != 3 {
		t.Errorf("%d tries", tries)
	}
}

func TestAnErrorRollsBackAndIsPassedOn(t *testing.T) {
	id, mine := policysidecar.NewUUID(), errors.New("mine")
	err := client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
		must(t, err)
		return mine
	})
	if err != mine || stored(t, id) {
		t.Errorf("%v, stored %v", err, stored(t, id))
	}
}

func TestAPanicRollsBack(t *testing.T) {
	id := policysidecar.NewUUID()
	func() {
		defer func() {
			if recover() != "mine" {
				t.Error("another panic")
			}
		}()
		client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
			_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
			must(t, err)
			panic("mine")
		})
	}()
	if stored(t, id) {
		t.Error("stored")
	}
}

func TestASavepointUndoesItsOwnAndNoMore(t *testing.T) {
	ids := []string{policysidecar.NewUUID(), policysidecar.NewUUID(), policysidecar.NewUUID(), policysidecar.NewUUID()}
	must(t, client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		insert := func(ctx context.Context, id string) error {
			_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
			return err
		}
		must(t, insert(ctx, ids[0]))
		must(t, tx.Savepoint(ctx, func(ctx context.Context) error {
			must(t, insert(ctx, ids[1]))
			wants(t, tx.Savepoint(ctx, func(ctx context.Context) error {
				must(t, insert(ctx, ids[2]))
				return insert(ctx, ids[0])
			}), policysidecar.ErrConstraint)
			return nil
		}))
		return insert(ctx, ids[3])
	}))
	for i, id := range ids {
		if stored(t, id) != (i != 2) {
			t.Errorf("row %d: stored %v", i, stored(t, id))
		}
	}
}

// A caller whose own time was over had the half of a savepoint committed, for it was to be undone in that same time.
func TestASavepointEndsAsItsFunctionWhateverHasBecomeOfItsContext(t *testing.T) {
	for _, then := range []error{nil, errors.New("mine")} {
		before, within := policysidecar.NewUUID(), policysidecar.NewUUID()
		must(t, client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
			must(t, insert(ctx, tx, before))
			short, end := context.WithCancel(ctx)
			defer end()
			err := tx.Savepoint(short, func(ctx context.Context) error {
				must(t, insert(ctx, tx, within))
				end()
				return then
			})
			if err != then {
				t.Errorf("%v, and not %v", err, then)
			}
			return nil
		}))
		if !stored(t, before) || stored(t, within) != (then == nil) {
			t.Errorf("after %v: stored %v and %v", then, stored(t, before), stored(t, within))
		}
	}
}

// A panic that was caught outside its savepoint left the half of that to be committed.
func TestASavepointThatPanicsIsUndone(t *testing.T) {
	kept, undone := policysidecar.NewUUID(), policysidecar.NewUUID()
	must(t, client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		func() {
			defer func() {
				if recover() != "mine" {
					t.Error("another panic")
				}
			}()
			tx.Savepoint(ctx, func(ctx context.Context) error {
				must(t, insert(ctx, tx, undone))
				panic("mine")
			})
		}()
		return insert(ctx, tx, kept)
	}))
	if !stored(t, kept) || stored(t, undone) {
		t.Errorf("stored %v and %v", stored(t, kept), stored(t, undone))
	}
}

// A savepoint that could not be undone was told to its function, which took that for dealt with, and half of it was committed.
func TestWhatASavepointCannotUndoIsNeverCommitted(t *testing.T) {
	id, mine := policysidecar.NewUUID(), errors.New("mine")
	err := client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		_, err := client.Transactions().Savepoint(ctx, &pb.SavepointRequest{TransactionId: tx.ID(), Name: "outer"})
		must(t, err)
		err = tx.Savepoint(ctx, func(ctx context.Context) error {
			// With this one the sidecar forgets those that were set after it.
			_, err := client.Transactions().RollbackToSavepoint(ctx, &pb.RollbackToSavepointRequest{TransactionId: tx.ID(), Name: "outer"})
			must(t, err)
			must(t, insert(ctx, tx, id))
			return mine
		})
		if !errors.Is(err, mine) || !errors.Is(err, policysidecar.ErrPrecondition) {
			t.Errorf("%v", err)
		}
		if _, err := tx.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{}); err == nil {
			t.Error("it goes on")
		}
		return nil
	})
	if told := wants(t, err, policysidecar.ErrPrecondition); told.Reason != "SAVEPOINT_UNKNOWN" || told.Retriable() {
		t.Errorf("%v", told)
	}
	if stored(t, id) {
		t.Error("stored")
	}
}

// What its function had prepared was told as rolled back, and was to be committed again by the end of the function.
func TestAPreparedTransactionIsLeftToItsCaller(t *testing.T) {
	prepare := func(id string, then error) (prepared string, err error) {
		attempts := 0
		err = client.Run(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
			attempts++
			must(t, insert(ctx, tx, id))
			lease, err := tx.Prepare(ctx, time.Minute)
			must(t, err)
			if lease != time.Minute {
				t.Errorf("a lease of %v", lease)
			}
			// In place of a commit elsewhere.
			_, err = client.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
			must(t, err)
			prepared = tx.ID()
			return then
		})
		if attempts != 1 || stored(t, id) || !isPrepared(t, prepared) {
			t.Errorf("%d attempts, stored %v, prepared %v", attempts, stored(t, id), isPrepared(t, prepared))
		}
		return prepared, err
	}
	one, two := policysidecar.NewUUID(), policysidecar.NewUUID()
	first, err := prepare(one, nil)
	must(t, err)
	_, err = client.Transactions().CommitPrepared(ctx, &pb.CommitPreparedRequest{TransactionId: first})
	must(t, err)
	away := &policysidecar.Error{Code: codes.Unavailable}
	second, err := prepare(two, away)
	if err != away {
		t.Errorf("%v", err)
	}
	_, err = client.Transactions().RollbackPrepared(ctx, &pb.RollbackPreparedRequest{TransactionId: second})
	must(t, err)
	if !stored(t, one) || stored(t, two) {
		t.Errorf("stored %v and %v", stored(t, one), stored(t, two))
	}
	wants(t, client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		return tx.Savepoint(ctx, func(ctx context.Context) error {
			_, err := tx.Prepare(ctx, 0)
			return err
		})
	}), policysidecar.ErrPrecondition)
}

func TestACallCannotLeaveItsTransaction(t *testing.T) {
	id := policysidecar.NewUUID()
	_, err := client.PolicyEngine().InsertPolicyVersion(ctx, version(id))
	told := wants(t, err, policysidecar.ErrPrecondition)
	if told.Reason != pb.ErrorReason_TRANSACTION_REQUIRED.String() {
		t.Errorf("reason %s", told.Reason)
	}
	var late *policysidecar.Tx
	must(t, client.InTransaction(ctx, policysidecar.TxOptions{}, func(_ context.Context, tx *policysidecar.Tx) error {
		late = tx
		return nil
	}))
	_, err = late.PolicyEngine().InsertPolicyVersion(ctx, version(id))
	wants(t, err, policysidecar.ErrTransactionEnded)
}

func TestRunTriesAgainAfterAConflict(t *testing.T) {
	ceilings, err := client.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	must(t, err)
	ceiling := ceilings.RiskCeilings[0]
	options := policysidecar.TxOptions{Isolation: pb.IsolationLevel_ISOLATION_LEVEL_SERIALIZABLE}
	var both, done sync.WaitGroup
	both.Add(2)
	attempts := make([]int, 2)
	for i := range attempts {
		done.Go(func() {
			err := client.Run(ctx, options, func(ctx context.Context, tx *policysidecar.Tx) error {
				attempts[i]++
				read, err := tx.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
				if err != nil {
					return err
				}
				if attempts[i] == 1 {
					both.Done()
					both.Wait()
				}
				for _, now := range read.RiskCeilings {
					if now.Id == ceiling.Id {
						_, err = tx.PolicyEngine().UpdateRiskCeiling(ctx, &pb.UpdateRiskCeilingRequest{
							CeilingId: ceiling.Id, Updates: &pb.RiskCeilingPatch{CurrentValue: new(now.CurrentValue + 1)},
							UpdateMask: mask("current_value"),
						})
					}
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if attempts[0]+attempts[1] < 3 {
		t.Errorf("attempts %v", attempts)
	}
	after, err := client.PolicyEngine().FetchRiskCeilings(ctx, &pb.FetchRiskCeilingsRequest{})
	must(t, err)
	if got := after.RiskCeilings[0].CurrentValue - ceiling.CurrentValue; got != 2 {
		t.Errorf("counted %v", got)
	}
}

func TestALeaseThatEndsEndsTheContext(t *testing.T) {
	err := client.InTransaction(ctx, policysidecar.TxOptions{TotalLease: 300 * time.Millisecond}, func(ctx context.Context, tx *policysidecar.Tx) error {
		<-ctx.Done()
		return ctx.Err()
	})
	told := wants(t, err, policysidecar.ErrTransactionEnded)
	if told.Reason != pb.ErrorReason_TRANSACTION_EXPIRED.String() {
		t.Errorf("reason %s", told.Reason)
	}
}

func TestExecuteRunsInsideATransaction(t *testing.T) {
	one, two := policysidecar.NewUUID(), policysidecar.NewUUID()
	list := func(id string) *pb.ExecuteRequest {
		return &pb.ExecuteRequest{Operations: []*pb.Operation{
			{Request: &pb.Operation_InsertPolicyVersion{InsertPolicyVersion: version(id)}},
		}}
	}
	mine := errors.New("mine")
	err := client.InTransaction(ctx, policysidecar.TxOptions{}, func(ctx context.Context, tx *policysidecar.Tx) error {
		_, err := tx.Execute(ctx, list(one))
		must(t, err)
		return mine
	})
	_, alone := client.SingleUse().Execute(ctx, list(two))
	must(t, alone)
	if err != mine || stored(t, one) || !stored(t, two) {
		t.Errorf("%v, stored %v and %v", err, stored(t, one), stored(t, two))
	}
}
