package policysidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
)

// Kinds of errors that a caller tells apart, with errors.Is.
var (
	// ErrInvalidRequest: fields, headers or values are wrong; Violations names the fields.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrConstraint: a constraint of the database refuses the row.
	ErrConstraint = errors.New("constraint violated")
	// ErrConflict: the transaction collided with another one; all of it may be tried again.
	ErrConflict = errors.New("conflict")
	// ErrPrecondition: the state of things does not allow it. ErrTransactionEnded and ErrTransactionAborted are such, too.
	ErrPrecondition = errors.New("precondition failed")
	// ErrTransactionEnded: the transaction has ended, or there is none of that id.
	ErrTransactionEnded = errors.New("transaction ended")
	// ErrTransactionAborted: a statement of the transaction had failed: roll back, or back to a savepoint.
	ErrTransactionAborted = errors.New("transaction aborted")
	// ErrNotFound: there is no such thing.
	ErrNotFound = errors.New("not found")
	// ErrUnauthenticated: the caller is not known.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermission: the caller may not do that.
	ErrPermission = errors.New("permission denied")
	// ErrLimit: a limit is reached; where Retriable, only for now.
	ErrLimit = errors.New("limit reached")
	// ErrUnavailable: the sidecar or its database is not there now.
	ErrUnavailable = errors.New("unavailable")
	// ErrOutcomeUnknown: nobody could say whether it was committed; TransactionID names the transaction.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrInternal: a defect of the sidecar or of what is stored, or a method that it does not have.
	ErrInternal = errors.New("internal error")
)

// Error is a call that did not succeed. errors.Is tells its kind, and context.DeadlineExceeded and context.Canceled.
type Error struct {
	Code codes.Code
	// Reason is the name of a pb.ErrorReason, which a newer sidecar may know more of; empty where no sidecar answered.
	Reason   string
	Message  string
	Metadata map[string]string
	// RetryAfter is the least delay after which it may succeed; 0 where waiting is not said to help.
	RetryAfter time.Duration
	// Violations are the fields that were refused.
	Violations []*errdetails.BadRequest_FieldViolation
	// Preconditions are what was expected and not found.
	Preconditions []*errdetails.PreconditionFailure_Violation
	// TransactionID is set with ErrOutcomeUnknown of a transaction.
	TransactionID string
	// IdempotencyKey is set where a single-use write, or an Execute, may have taken effect, for want of an answer: GetOutcome tells
	// by it whether it has, and the same call with it, by WithIdempotencyKey, takes effect once.
	IdempotencyKey string

	status *status.Status
	cause  error
}

const codeDeadline = codes.DeadlineExceeded

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("%v: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%v %s: %s", e.Code, e.Reason, e.Message)
}

// Retriable is true where the same call, or inside a transaction the whole of that, may succeed when it is tried again; Run goes
// by it.
func (e *Error) Retriable() bool {
	switch e.kind() {
	case ErrTransactionEnded:
		// It is known to be rolled back, and not for its own slowness.
		return rolledBack[e.Reason]
	case ErrOutcomeUnknown:
		return false
	}
	return e.RetryAfter > 0 || e.Code == codes.Aborted || e.Code == codes.Unavailable
}

// repeats is true where a call outside transactions that can be repeated may succeed then. A key makes a write take effect once,
// whatever became of it before; a transaction that has ended is none of this call's.
func (e *Error) repeats() bool {
	kind := e.kind()
	return kind == ErrOutcomeUnknown || kind != ErrTransactionEnded && e.Retriable()
}

// unanswered is true where a call may have taken effect although it failed.
func (e *Error) unanswered() bool {
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal:
		return true
	}
	return false
}

// Is tells the kind.
func (e *Error) Is(target error) bool {
	switch kind := e.kind(); target {
	case ErrPrecondition:
		return e.Code == codes.FailedPrecondition && kind != ErrConstraint
	default:
		return target == kind
	}
}

// Unwrap gives the error behind it, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is the status that the call ended with.
func (e *Error) GRPCStatus() *status.Status {
	if e.status != nil {
		return e.status
	}
	return status.New(e.Code, e.Message)
}

var rolledBack = map[string]bool{
	pb.ErrorReason_TRANSACTION_ROLLED_BACK.String(): true,
	pb.ErrorReason_TRANSACTION_LOST.String():        true,
	pb.ErrorReason_TRANSACTION_ELSEWHERE.String():   true,
}

var byReason = map[string]error{}

func init() {
	for kind, reasons := range map[error][]pb.ErrorReason{
		ErrConstraint: {
			pb.ErrorReason_UNIQUE_VIOLATION, pb.ErrorReason_FOREIGN_KEY_VIOLATION, pb.ErrorReason_NOT_NULL_VIOLATION,
			pb.ErrorReason_CHECK_VIOLATION,
		},
		ErrTransactionEnded: {
			pb.ErrorReason_TRANSACTION_UNKNOWN, pb.ErrorReason_TRANSACTION_COMMITTED, pb.ErrorReason_TRANSACTION_ROLLED_BACK,
			pb.ErrorReason_TRANSACTION_EXPIRED, pb.ErrorReason_TRANSACTION_LOST, pb.ErrorReason_TRANSACTION_OUTCOME_UNKNOWN,
			pb.ErrorReason_TRANSACTION_ELSEWHERE, pb.ErrorReason_TRANSACTION_PREPARED,
		},
		ErrTransactionAborted: {pb.ErrorReason_TRANSACTION_ABORTED},
		ErrOutcomeUnknown:     {pb.ErrorReason_COMMIT_OUTCOME_UNKNOWN},
	} {
		for _, reason := range reasons {
			byReason[reason.String()] = kind
		}
	}
}

var byCode = map[codes.Code]error{
	codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded,
	codes.InvalidArgument: ErrInvalidRequest, codes.OutOfRange: ErrInvalidRequest, codes.NotFound: ErrNotFound,
	codes.AlreadyExists: ErrConstraint, codes.PermissionDenied: ErrPermission, codes.Unauthenticated: ErrUnauthenticated,
	codes.ResourceExhausted: ErrLimit, codes.FailedPrecondition: ErrPrecondition, codes.Aborted: ErrConflict,
	codes.Unavailable: ErrUnavailable,
}

func (e *Error) kind() error {
	if kind, ok := byReason[e.Reason]; ok {
		return kind
	}
	if kind, ok := byCode[e.Code]; ok {
		return kind
	}
	return ErrInternal
}

// errorOf makes an Error of what a call with that context ended with.
func errorOf(ctx context.Context, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	told := status.Convert(err)
	e := &Error{Code: told.Code(), Message: told.Message(), status: told}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = detail.Reason, detail.Metadata
		case *errdetails.RetryInfo:
			e.RetryAfter = max(detail.RetryDelay.AsDuration(), 1)
		case *errdetails.BadRequest:
			e.Violations = detail.FieldViolations
		case *errdetails.PreconditionFailure:
			e.Preconditions = detail.Violations
		}
	}
	if e.Code == codes.Canceled || e.Code == codes.DeadlineExceeded {
		var ended *Error
		if errors.As(context.Cause(ctx), &ended) {
			return ended
		}
	}
	if e.Reason == "" && ctx.Err() == nil && (e.Code == codes.Canceled || e.Code == codes.Unknown) {
		// What a connection that went away looks like; a sidecar gives a reason.
		e.Code, e.status = codes.Unavailable, nil
	}
	return e
}
