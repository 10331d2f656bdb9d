package policysidecar

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// tokenName is the field of a stream's request and of its rows by which it goes on.
const tokenName = protoreflect.Name("resume_token")

// mostKept is how many rows without a token after them are remembered; a stream that brings more does not go on.
const mostKept = 2_000

// resuming is a stream that is opened again where it is cut: after the last token that came, and without the rows that were
// handed out since. These are told by what is in them, so a row that was changed meanwhile comes once more, and one that was
// added or removed disturbs nothing.
type resuming struct {
	grpc.ClientStream
	ctx  context.Context
	open func() (grpc.ClientStream, error)
	// request has the last token; nil: the stream has none.
	request proto.Message
	// kept are the rows handed out since then, in the order of the stream.
	kept []proto.Message
	// again are those of them that have not come again.
	again []proto.Message
	// failures since the last row that was handed out.
	failures int
}

func (s *resuming) SendMsg(message any) error {
	if request := message.(proto.Message); tokenOf(request) != nil {
		s.request = proto.Clone(request)
	}
	return s.ClientStream.SendMsg(message)
}

func (s *resuming) RecvMsg(message any) error {
	for {
		err := s.ClientStream.RecvMsg(message)
		if err == nil && (s.request == nil || s.isNew(message.(proto.Message))) {
			s.failures = 0
			return nil
		}
		for err != nil {
			if !s.goesOn(err) {
				return err
			}
			err = s.reopen()
		}
	}
}

// goesOn waits before another attempt, and tells whether there is one.
func (s *resuming) goesOn(err error) bool {
	var told *Error
	if s.request == nil || s.ctx.Err() != nil || !errors.As(err, &told) || told.kind() != ErrUnavailable {
		return false
	}
	s.failures++
	return s.failures < callAttempts && pause(s.ctx, delay(told.RetryAfter, s.failures))
}

func (s *resuming) reopen() error {
	stream, err := s.open()
	if err != nil {
		return err
	}
	s.ClientStream, s.again = stream, slices.Clone(s.kept)
	// Where one of these fails, receiving tells why.
	if stream.SendMsg(s.request) == nil {
		stream.CloseSend()
	}
	return nil
}

// isNew remembers a row, and tells whether it is handed out for the first time.
func (s *resuming) isNew(row proto.Message) bool {
	at := s.indexAgain(row)
	if at >= 0 {
		s.again = s.again[at+1:]
	}
	token := tokenOf(row)
	switch {
	case token != nil && row.ProtoReflect().Has(token):
		request := s.request.ProtoReflect()
		request.Set(tokenOf(s.request), row.ProtoReflect().Get(token))
		s.kept = slices.Clone(s.again)
	case at >= 0:
	case len(s.kept) == mostKept:
		s.request, s.kept, s.again = nil, nil, nil
	default:
		s.kept = slices.Insert(s.kept, len(s.kept)-len(s.again), row)
	}
	return at < 0
}

// indexAgain finds a row among those that were handed out before the cut, whether or not a token comes with it.
func (s *resuming) indexAgain(row proto.Message) int {
	if len(s.again) == 0 {
		return -1
	}
	if token := tokenOf(row); token != nil && row.ProtoReflect().Has(token) {
		row = proto.Clone(row)
		row.ProtoReflect().Clear(token)
	}
	return slices.IndexFunc(s.again, func(each proto.Message) bool { return proto.Equal(each, row) })
}

func tokenOf(message proto.Message) protoreflect.FieldDescriptor {
	return message.ProtoReflect().Descriptor().Fields().ByName(tokenName)
}
