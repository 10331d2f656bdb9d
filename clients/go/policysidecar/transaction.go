package policysidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
)

// TxOptions say how a transaction is to be run. The zero value is READ COMMITTED, with the leases of the sidecar.
type TxOptions struct {
	// Isolation is how strictly it is shielded from others; 0: READ COMMITTED.
	Isolation pb.IsolationLevel
	// ReadOnly refuses writes.
	ReadOnly bool
	// Deferrable waits for a snapshot on which reading never conflicts; with SERIALIZABLE and ReadOnly.
	Deferrable bool
	// TotalLease is the longest life; 0: what the sidecar is configured for.
	TotalLease time.Duration
	// Label is a free text for logs and lists, at most 128 characters.
	Label string
	// Attempts is how often Run tries; 0: 5.
	Attempts int
	// Token, if set, takes what WithConsistency needs to see what was committed, where the sidecar has replicas.
	Token *string
}

// Tx is an open transaction. Its services work inside it, one call at a time; it is rolled back as soon as its process dies.
type Tx struct {
	Services
	client *Client
	id     string
	// end ends the stream that holds it, upon which the sidecar rolls it back.
	end context.CancelCauseFunc
	// savepoints is how many have been set, open how many of them have not ended.
	savepoints, open int
	// doomed is why it is rolled back whatever its function returns; nil: it is not.
	doomed *Error
	// prepared tells that it is, mayBePrepared that nobody knows.
	prepared, mayBePrepared bool
}

// ID is its id at the sidecar.
func (tx *Tx) ID() string { return tx.id }

// Execute runs a list of operations inside the transaction in one round trip: all take effect, or none.
func (tx *Tx) Execute(ctx context.Context, request *pb.ExecuteRequest, options ...grpc.CallOption) (*pb.ExecuteResponse, error) {
	return pb.NewTransactionServiceClient(tx.bound).Execute(ctx, request, options...)
}

// Run is InTransaction, tried again from the start while it fails with an Error that is Retriable, not beyond the deadline of
// ctx. So fn may run several times: what it does elsewhere must bear that.
func (c *Client) Run(ctx context.Context, options TxOptions, fn func(context.Context, *Tx) error) error {
	attempts := options.Attempts
	if attempts == 0 {
		attempts = 5
	}
	prepared := false
	promising := func(failed *Error) bool { return !prepared && failed.Retriable() }
	return retry(ctx, attempts, promising, func() error {
		return c.InTransaction(ctx, options, func(ctx context.Context, tx *Tx) error {
			defer func() { prepared = tx.prepared }()
			return fn(ctx, tx)
		})
	})
}

// InTransaction runs fn in a transaction, commits when it returns nil, and else rolls back and returns its error; so does a
// panic. The context that fn is given ends with the transaction, unless that is prepared.
//
// nil means committed, or prepared by fn. What a savepoint could not undo is rolled back with all the rest, and the error says
// so, also where fn returns nil. Where the answer to the commit is lost, the sidecar is asked what became of it, for as long as the
// client's timeout, whatever has become of ctx; ErrOutcomeUnknown where that brings no answer.
func (c *Client) InTransaction(ctx context.Context, options TxOptions, fn func(context.Context, *Tx) error) (err error) {
	held, end := context.WithCancelCause(ctx)
	defer end(nil)
	stream, id, err := c.hold(held, options)
	if err != nil {
		return err
	}
	inside, leave := context.WithCancelCause(held)
	defer leave(nil)
	go func() {
		if ended := endOf(stream); ended != nil {
			leave(ended)
		}
	}()

	tx := &Tx{Services: Services{bound{client: c, header: id}}, client: c, id: id, end: end}
	done := false
	defer func() {
		if !done && !tx.prepared {
			tx.rollback(ctx)
		}
	}()
	if err := fn(inside, tx); err != nil {
		var ended *Error
		if errors.Is(err, context.Canceled) && ctx.Err() == nil && errors.As(context.Cause(inside), &ended) {
			return ended
		}
		return err
	}
	switch {
	case tx.doomed != nil:
		return tx.doomed
	case tx.prepared:
		return nil
	case ctx.Err() != nil:
		return errorOf(ctx, status.FromContextError(ctx.Err()).Err())
	}
	done = true
	return c.commit(ctx, id, options.Token)
}

// hold begins a transaction on a stream that lives as long as ctx.
func (c *Client) hold(ctx context.Context, options TxOptions) (grpc.ServerStreamingClient[pb.HoldResponse], string, error) {
	begin := &pb.BeginRequest{ReadOnly: options.ReadOnly, Deferrable: options.Deferrable, Label: options.Label}
	if options.Isolation != 0 {
		begin.IsolationLevel = options.Isolation.Enum()
	}
	if options.TotalLease != 0 {
		begin.TotalLease = durationpb.New(options.TotalLease)
	}
	// The stream must not end with the time that its beginning may take.
	opening, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(c.timeout, func() {
		cancel(&Error{Code: codeDeadline, Message: fmt.Sprintf("no transaction within %v", c.timeout)})
	})
	defer late.Stop()
	stream, err := c.Transactions().Hold(opening, &pb.HoldRequest{Begin: begin})
	if err != nil {
		return nil, "", err
	}
	first, err := stream.Recv()
	if err == io.EOF {
		err = &Error{Code: codes.Unavailable, Message: "the transaction ended before it began"}
	}
	if err != nil {
		return nil, "", err
	}
	return stream, first.Transaction.GetId(), nil
}

// endOf waits until a held transaction is no longer held, and tells its end as an error; nil: it is prepared.
func endOf(stream grpc.ServerStreamingClient[pb.HoldResponse]) error {
	last, err := stream.Recv()
	if err != nil && err != io.EOF {
		return err
	}
	state := last.GetTransaction().GetState()
	reason := pb.ErrorReason_TRANSACTION_ROLLED_BACK
	switch state {
	case pb.TransactionState_TRANSACTION_STATE_PREPARED:
		return nil
	case pb.TransactionState_TRANSACTION_STATE_EXPIRED:
		reason = pb.ErrorReason_TRANSACTION_EXPIRED
	case pb.TransactionState_TRANSACTION_STATE_LOST:
		reason = pb.ErrorReason_TRANSACTION_LOST
	case pb.TransactionState_TRANSACTION_STATE_COMMITTED:
		reason = pb.ErrorReason_TRANSACTION_COMMITTED
	}
	return &Error{Code: codes.FailedPrecondition, Reason: reason.String(), Message: "the transaction has ended: " + state.String()}
}

// apart is a context for what must be done whatever has become of the caller's.
func (c *Client) apart(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), min(c.timeout, 5*time.Second))
}

// rollback ends it now, where the sidecar answers; the end of the stream does it in any case, and that of its lease where it is
// prepared.
func (tx *Tx) rollback(ctx context.Context) {
	first, cancel := tx.client.apart(ctx)
	defer cancel()
	service := tx.client.Transactions()
	service.Rollback(first, &pb.RollbackRequest{TransactionId: tx.id}, grpc.WaitForReady(false))
	if tx.mayBePrepared {
		second, cancel := tx.client.apart(ctx)
		defer cancel()
		service.RollbackPrepared(second, &pb.RollbackPreparedRequest{TransactionId: tx.id})
	}
}

// doom makes sure that it is never committed, whatever its function makes of the error.
func (tx *Tx) doom(why string, failed error) {
	told := &Error{}
	errors.As(failed, &told)
	doomed := *told
	doomed.Message, doomed.cause = why+": "+told.Message, failed
	if doomed.kind() == ErrOutcomeUnknown {
		// Not of this any more: nobody commits it.
		doomed.Reason = ""
	}
	tx.doomed = &doomed
	tx.end(tx.doomed)
}

// commit commits, and finds out what became of it where that is not told.
func (c *Client) commit(ctx context.Context, id string, token *string) error {
	var trailer metadata.MD
	_, err := c.Transactions().Commit(ctx, &pb.CommitRequest{TransactionId: id}, grpc.Trailer(&trailer))
	if err == nil {
		if token != nil {
			*token = ConsistencyToken(trailer)
		}
		return nil
	}
	var told *Error
	if !errors.As(err, &told) {
		return err
	}
	if told.unanswered() || told.Reason == pb.ErrorReason_TRANSACTION_OUTCOME_UNKNOWN.String() {
		return c.outcome(ctx, id, told)
	}
	return err
}

// outcome asks what became of a commit without answer, until the client's timeout.
func (c *Client) outcome(ctx context.Context, id string, cause *Error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		request := &pb.GetOutcomeRequest{Subject: &pb.GetOutcomeRequest_TransactionId{TransactionId: id}}
		answer, err := c.Transactions().GetOutcome(ctx, request)
		var told *Error
		wait := time.Duration(0)
		switch {
		case errors.As(err, &told) && told.Retriable():
			wait = told.RetryAfter
		case err != nil, answer.Outcome == pb.Outcome_OUTCOME_UNKNOWN:
			return unknown(id, cause)
		case answer.Outcome == pb.Outcome_OUTCOME_COMMITTED:
			return nil
		case answer.Outcome == pb.Outcome_OUTCOME_ABORTED:
			return &Error{Code: codes.Aborted, Message: "the commit was lost on its way, and the transaction rolled back", cause: cause}
		}
		if !pause(ctx, delay(wait, attempt)) {
			return unknown(id, cause)
		}
	}
}

func unknown(id string, cause *Error) error {
	return &Error{
		Code: codes.Unavailable, Reason: pb.ErrorReason_COMMIT_OUTCOME_UNKNOWN.String(), TransactionID: id, cause: cause,
		Message: "whether transaction " + id + " was committed is not known",
	}
}

// Savepoint runs fn, and undoes what it did when it returns an error, which is returned, or panics; the transaction goes on. May
// be nested.
//
// How it ends does not depend on what has become of ctx. Where it cannot be undone, the error says so, too, and the whole
// transaction is rolled back.
func (tx *Tx) Savepoint(ctx context.Context, fn func(context.Context) error) (err error) {
	tx.savepoints++
	name := fmt.Sprintf("s%d", tx.savepoints)
	if _, err := tx.client.Transactions().Savepoint(ctx, &pb.SavepointRequest{TransactionId: tx.id, Name: name}); err != nil {
		return err
	}
	tx.open++
	kept := false
	defer func() {
		tx.open--
		if kept {
			return
		}
		if failed := tx.undo(ctx, name); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	if err := fn(ctx); err != nil {
		return err
	}
	err = tx.release(ctx, name)
	kept = err == nil
	return err
}

// release keeps what was done since a savepoint.
func (tx *Tx) release(ctx context.Context, name string) error {
	ctx, cancel := tx.client.apart(ctx)
	defer cancel()
	request := &pb.ReleaseSavepointRequest{TransactionId: tx.id, Name: name}
	_, err := tx.client.Transactions().ReleaseSavepoint(ctx, request, grpc.WaitForReady(false))
	return err
}

// undo undoes what was done since a savepoint, or else the whole transaction.
func (tx *Tx) undo(ctx context.Context, name string) error {
	if tx.doomed != nil {
		return nil
	}
	short, cancel := tx.client.apart(ctx)
	defer cancel()
	request := &pb.RollbackToSavepointRequest{TransactionId: tx.id, Name: name}
	if _, err := tx.client.Transactions().RollbackToSavepoint(short, request, grpc.WaitForReady(false)); err != nil {
		tx.doom("rolled back, for a savepoint could not be undone", err)
		return tx.doomed
	}
	// One that stays set is in nobody's way.
	tx.release(ctx, name)
	return nil
}

// Prepare makes sure that the transaction can be committed, and leaves that to CommitPrepared or RollbackPrepared of
// Client.Transactions, which take its ID: so it ends together with a transaction of the caller's own database, which is committed
// in between. Nothing else can be done in it, and whatever its function returns then, it is neither committed nor rolled back nor
// run again.
//
// lease is how long it may stay prepared before it is rolled back; 0: what the sidecar is configured for. What is returned is the
// lease granted. After an error that leaves open whether it is prepared it is rolled back; after another it is as it was, unless
// the error says that it has ended. Inside a savepoint it is refused with ErrPrecondition.
func (tx *Tx) Prepare(ctx context.Context, lease time.Duration) (time.Duration, error) {
	if tx.open > 0 {
		return 0, &Error{Code: codes.FailedPrecondition, Message: "a transaction cannot be prepared inside a savepoint"}
	}
	request := &pb.PrepareRequest{TransactionId: tx.id}
	if lease != 0 {
		request.Lease = durationpb.New(lease)
	}
	answer, err := tx.client.Transactions().Prepare(ctx, request)
	var told *Error
	if errors.As(err, &told) && told.unanswered() {
		tx.mayBePrepared = true
		tx.doom("rolled back, for nobody knows whether it was prepared", err)
		return 0, tx.doomed
	}
	if err != nil {
		return 0, err
	}
	tx.prepared = true
	return answer.Lease.AsDuration(), nil
}
