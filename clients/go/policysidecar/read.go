package policysidecar

import (
	"context"
	"io"
	"iter"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What a read outside transactions has to see, beside a token.
const (
	// Strong: all that was committed before.
	Strong = "strong"
	// Eventual: what a replica has, which lags no more than the sidecar is configured to bear.
	Eventual = "eventual"
)

// WithConsistency asks of the reads of a context that they see at least that: Strong, Eventual, or all that was committed
// before a token was given.
func WithConsistency(ctx context.Context, consistency string) context.Context {
	return with(ctx, "consistency", consistency)
}

const documentsHeader = "documents"

// Documents is how documents, fields of the type Value, are told in the requests and answers of a call.
type Documents string

const (
	// DocumentsAsValues: as Values, whose numbers are doubles.
	DocumentsAsValues Documents = "values"
	// DocumentsAsText: as their exact JSON text, the StringValue of each Value, in which `1.0` is not `1`.
	DocumentsAsText Documents = "text"
)

// WithDocuments says how the documents of the calls of a context are told.
func WithDocuments(ctx context.Context, documents Documents) context.Context {
	return with(ctx, documentsHeader, string(documents))
}

func with(ctx context.Context, header, value string) context.Context {
	headers, _ := metadata.FromOutgoingContext(ctx)
	headers = headers.Copy()
	if headers == nil {
		headers = metadata.MD{}
	}
	headers.Set(header, value)
	return metadata.NewOutgoingContext(ctx, headers)
}

// ConsistencyToken is that of the trailer of a single-use write, which grpc.Trailer reads; empty where there are no replicas.
func ConsistencyToken(trailer metadata.MD) string {
	return strings.Join(trailer.Get("consistency-token"), "")
}

// InexactValues names the stored values that a trailer says did not fit their fields: `schema.table.column[key]=how`.
func InexactValues(trailer metadata.MD) []string {
	text := strings.Join(trailer.Get("inexact-values"), ", ")
	if text == "" {
		return nil
	}
	return strings.Split(text, ", ")
}

// Rows calls a stub's stream and yields its rows; an error is the last. Leaving the loop cancels the stream. Outside
// transactions a stream that is cut goes on by itself, unless CutStreamsEnd says otherwise. No row is handed out twice but one
// that has changed meanwhile, by others or in the caller's hands.
//
//	for row, err := range policysidecar.Rows(ctx, client.PolicyEngine().StreamViolations, request) {
func Rows[Request, Row any](
	ctx context.Context,
	call func(context.Context, *Request, ...grpc.CallOption) (grpc.ServerStreamingClient[Row], error),
	request *Request,
	options ...grpc.CallOption,
) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := call(ctx, request, options...)
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			row, err := stream.Recv()
			if err == io.EOF || !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// Pages calls a stub's list and yields its answers one after the other, each where the last one ended; an error is the last.
// The limit of the request is the size of a page.
//
//	for page, err := range policysidecar.Pages(ctx, client.PolicyEngine().FetchViolations, request) {
func Pages[Request, Answer any, R message[Request], A page[Answer]](
	ctx context.Context,
	call func(context.Context, R, ...grpc.CallOption) (A, error),
	request R,
	options ...grpc.CallOption,
) iter.Seq2[A, error] {
	return func(yield func(A, error) bool) {
		next := proto.Clone(request)
		field := next.ProtoReflect().Descriptor().Fields().ByName("page_token")
		for {
			answer, err := call(ctx, next.(R), options...)
			if err != nil {
				yield(nil, err)
				return
			}
			token := answer.GetNextPageToken()
			if !yield(answer, nil) || token == "" {
				return
			}
			next.ProtoReflect().Set(field, protoreflect.ValueOfString(token))
		}
	}
}

// message is the request of a list that is read by pages.
type message[T any] interface {
	*T
	proto.Message
	GetPageToken() string
}

// page is an answer after which there may be more.
type page[T any] interface {
	*T
	GetNextPageToken() string
}
