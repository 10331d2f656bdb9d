package policysidecar

import (
	"context"
	"io"
	"iter"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
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
	headers, _ := metadata.FromOutgoingContext(ctx)
	headers = headers.Copy()
	if headers == nil {
		headers = metadata.MD{}
	}
	headers.Set("consistency", consistency)
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

// Rows calls a stub's stream and yields its rows; an error is the last. Leaving the loop cancels the stream.
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
