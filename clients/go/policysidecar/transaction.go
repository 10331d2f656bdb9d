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
	client     *Client
	id         string
	savepoints int
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
	return retry(ctx, attempts, (*Error).Retriable, func() error { return c.InTransaction(ctx, options, fn) })
}

// InTransaction runs fn in a transaction, commits when it returns nil, and else rolls back and returns its error; so does a
// panic. The context that fn is given ends with the transaction.
//
// nil means committed. Where the answer to the commit is lost, the sidecar is asked what became of it, for as long as the
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
	go func() { leave(endOf(held, stream)) }()

	tx := &Tx{Services: Services{bound{client: c, header: id}}, client: c, id: id}
	done := false
	defer func() {
		if !done {
			c.rollback(ctx, id)
		}
	}()
	if err := fn(inside, tx); err != nil {
		var ended *Error
		if errors.Is(err, context.Canceled) && ctx.Err() == nil && errors.As(context.Cause(inside), &ended) {
			return ended
		}
		return err
	}
	if ctx.Err() != nil {
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

// endOf waits for the end of a held transaction, and tells it as an error.
func endOf(ctx context.Context, stream grpc.ServerStreamingClient[pb.HoldResponse]) error {
	last, err := stream.Recv()
	if err != nil && err != io.EOF {
		return err
	}
	state := last.GetTransaction().GetState()
	reason := pb.ErrorReason_TRANSACTION_ROLLED_BACK
	switch state {
	case pb.TransactionState_TRANSACTION_STATE_EXPIRED:
		reason = pb.ErrorReason_TRANSACTION_EXPIRED
	case pb.TransactionState_TRANSACTION_STATE_LOST:
		reason = pb.ErrorReason_TRANSACTION_LOST
	case pb.TransactionState_TRANSACTION_STATE_COMMITTED:
		reason = pb.ErrorReason_TRANSACTION_COMMITTED
	}
	return &Error{Code: codes.FailedPrecondition, Reason: reason.String(), Message: "the transaction has ended: " + state.String()}
}

// rollback ends it now, where the sidecar answers; the end of the stream does it in any case.
func (c *Client) rollback(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(c.timeout, 5*time.Second))
	defer cancel()
	c.Transactions().Rollback(ctx, &pb.RollbackRequest{TransactionId: id}, grpc.WaitForReady(false))
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
	switch told.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal:
		return c.outcome(ctx, id, told)
	}
	if told.Reason == pb.ErrorReason_TRANSACTION_OUTCOME_UNKNOWN.String() {
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

// Savepoint runs fn, and undoes what it did when it returns an error, which is returned; the transaction goes on. May be
// nested.
func (tx *Tx) Savepoint(ctx context.Context, fn func(context.Context) error) error {
	service := tx.client.Transactions()
	tx.savepoints++
	name := fmt.Sprintf("s%d", tx.savepoints)
	if _, err := service.Savepoint(ctx, &pb.SavepointRequest{TransactionId: tx.id, Name: name}); err != nil {
		return err
	}
	err := fn(ctx)
	if err != nil {
		if _, failed := service.RollbackToSavepoint(ctx, &pb.RollbackToSavepointRequest{TransactionId: tx.id, Name: name}); failed != nil {
			return errors.Join(err, failed)
		}
	}
	if _, failed := service.ReleaseSavepoint(ctx, &pb.ReleaseSavepointRequest{TransactionId: tx.id, Name: name}); failed != nil {
		return errors.Join(err, failed)
	}
	return err
}
