// Package policysidecar calls a policy-sidecar: transactions that end in one of two ways, calls that are tried again where
// that is safe, and errors to program against. Messages and stubs are those of policies.hoc/gen.
package policysidecar

import (
	"context"
	"crypto/tls"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
)

// DefaultAddress is called where neither an address nor the environment variable POLICY_SIDECAR names another.
const DefaultAddress = "127.0.0.1:50051"

// Options say how a Client calls. The zero value is good for a sidecar in the same pod.
type Options struct {
	// Token is sent as bearer token.
	Token string
	// TLS has the authorities to trust and the certificate to show; nil: no TLS.
	TLS *tls.Config
	// Timeout is the deadline of every call whose context has none, streams excepted: for them it bounds the wait for a
	// connection. 0: 30 s.
	Timeout time.Duration
	// MaxMessageBytes is the largest answer taken. 0: 64 MiB.
	MaxMessageBytes int
	// Keepalive is how often a connection with calls is asked whether it lives. 0: 20 s; negative: never.
	Keepalive time.Duration
	// FailFast lets a call fail at once where there is no connection; otherwise it waits for one until its deadline.
	FailFast bool
	// Documents is how the documents of calls are told whose context does not say; empty: DocumentsAsValues.
	Documents Documents
	// CutStreamsEnd lets a stream that is cut end with its error; otherwise it goes on by itself, outside transactions.
	CutStreamsEnd bool
	// Dial is passed to grpc: interceptors, telemetry.
	Dial []grpc.DialOption
}

// Client calls a sidecar; it is safe for use by many goroutines. Its own services make reads outside any transaction: a
// write through them is refused with TRANSACTION_REQUIRED.
type Client struct {
	Services
	connection    *grpc.ClientConn
	timeout       time.Duration
	token         string
	documents     Documents
	cutStreamsEnd bool
}

// Connect makes a client for `host:port` or `unix:/path`; empty: POLICY_SIDECAR, or else DefaultAddress. It connects with the
// first call, and again after the sidecar was away.
func Connect(address string, options Options) (*Client, error) {
	if address == "" {
		address = os.Getenv("POLICY_SIDECAR")
	}
	if address == "" {
		address = DefaultAddress
	}
	secure := insecure.NewCredentials()
	if options.TLS != nil {
		secure = credentials.NewTLS(options.TLS)
	}
	size := options.MaxMessageBytes
	if size == 0 {
		size = 64 << 20
	}
	again := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(size), grpc.WaitForReady(!options.FailFast)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(),
		// What the environment says of proxies is about the way out of the pod.
		grpc.WithNoProxy(),
	}
	every := options.Keepalive
	if every == 0 {
		every = 20 * time.Second
	}
	if every > 0 {
		dial = append(dial, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: every, Timeout: 10 * time.Second}))
	}
	connection, err := grpc.NewClient(address, append(dial, options.Dial...)...)
	if err != nil {
		return nil, err
	}
	client := &Client{
		connection: connection, timeout: options.Timeout, token: options.Token,
		documents: options.Documents, cutStreamsEnd: options.CutStreamsEnd,
	}
	if client.timeout == 0 {
		client.timeout = 30 * time.Second
	}
	client.Services = Services{bound{client: client}}
	return client, nil
}

// Close ends the connection and with it what is under way; open transactions are rolled back.
func (c *Client) Close() error { return c.connection.Close() }

// Transactions is the service that deals with transactions itself, for what this package has no words for: Get, List,
// GetOutcome, CommitPrepared, RollbackPrepared. What Prepare of it prepares, Run and InTransaction do not know of: Tx has its own.
func (c *Client) Transactions() pb.TransactionServiceClient {
	return pb.NewTransactionServiceClient(bound{client: c})
}

// SingleUse offers the services so that each call is its own transaction, committed before it answers. A write whose answer
// is lost is tried again with the same idempotency key, and takes effect once. Where no answer comes at all, Error.IdempotencyKey
// is what GetOutcome can be asked by.
func (c *Client) SingleUse() SingleUse {
	return SingleUse{Services{bound{client: c, header: singleUse}}}
}

// SingleUse has calls each of which is its own transaction.
type SingleUse struct{ Services }

// Execute runs a list of operations in one transaction and one round trip: all take effect, or none.
func (s SingleUse) Execute(ctx context.Context, request *pb.ExecuteRequest, options ...grpc.CallOption) (*pb.ExecuteResponse, error) {
	return pb.NewTransactionServiceClient(s.bound).Execute(ctx, request, options...)
}

// WithIdempotencyKey gives the single-use write, or the Execute, of a context a key of the caller's, a UUID: whoever makes it again
// under that key, also another process, gets its first answer, and it takes effect once. Another call under the same key is
// refused with IDEMPOTENCY_KEY_REUSED. Without it each has a new key of its own.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return with(ctx, keyHeader, key)
}
