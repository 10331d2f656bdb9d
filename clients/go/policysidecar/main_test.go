package policysidecar_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "policies.hoc/gen/hoc/cus/policies/v1"
	"policies.hoc/policysidecar"
	"policies.hoc/sidecartest"
)

var (
	shared *sidecartest.Sidecar
	client *policysidecar.Client
	ctx    = context.Background()
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if shared, err = sidecartest.Launch(); err != nil {
			panic(err)
		}
		defer shared.Stop()
		if client, err = policysidecar.Connect(shared.Address, policysidecar.Options{}); err != nil {
			panic(err)
		}
		defer client.Close()
		return m.Run()
	}())
}

// connect gives a client that ends with the test.
func connect(t *testing.T, address string, options policysidecar.Options) *policysidecar.Client {
	t.Helper()
	client, err := policysidecar.Connect(address, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// serve starts another sidecar of the same database, and ends it with the test; where it listens.
func serve(t *testing.T, env ...string) (*exec.Cmd, string) {
	t.Helper()
	words := strings.Fields(os.Getenv("POLICY_SIDECAR_COMMAND"))
	if len(words) == 0 {
		words = []string{"npx", "policy-sidecar"}
	}
	command := exec.Command(words[0], append(words[1:], "serve")...)
	command.Env = append(os.Environ(), append(env, "DATABASE_URL="+shared.Database, "SIDECAR_HTTP_LISTEN=off", "SIDECAR_LOG_LEVEL=error")...)
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	// The call to try is the last thing that a start prints.
	address := ""
	for lines := bufio.NewScanner(output); lines.Scan() && !strings.HasPrefix(lines.Text(), "try "); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "gRPC" {
			address = words[1]
		}
	}
	go io.Copy(io.Discard, output)
	return command, address
}

// socket is a short path for a socket.
func socket(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sidecar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return "unix:" + filepath.Join(folder, "s")
}

// version is a row to insert.
func version(id string) *pb.InsertPolicyVersionRequest {
	return &pb.InsertPolicyVersionRequest{VersionId: id, Version: new(id[:8]), PolicyHash: new("hash"), CreatedBy: new("test")}
}

// stored tells whether the row is there for everybody.
func stored(t *testing.T, id string) bool {
	t.Helper()
	answer, err := client.PolicyEngine().FetchPolicyVersionById(ctx, &pb.FetchPolicyVersionByIdRequest{VersionId: id})
	if err != nil {
		t.Fatal(err)
	}
	return answer.PolicyVersion != nil
}

// insert stores a row in a transaction.
func insert(ctx context.Context, tx *policysidecar.Tx, id string) error {
	_, err := tx.PolicyEngine().InsertPolicyVersion(ctx, version(id))
	return err
}

// isPrepared tells whether a transaction waits for its end.
func isPrepared(t *testing.T, id string) bool {
	t.Helper()
	list, err := client.Transactions().ListPrepared(ctx, &pb.ListPreparedRequest{})
	must(t, err)
	return slices.ContainsFunc(list.Transactions, func(each *pb.PreparedTransaction) bool { return each.GetId() == id })
}

// evaluation is a row with a document.
func evaluation(id string, document map[string]any) *pb.InsertEvaluationRequest {
	value, err := structpb.NewValue(document)
	if err != nil {
		panic(err)
	}
	return &pb.InsertEvaluationRequest{
		EvaluationId: id, ActionType: new("route"), Decision: new("allow"), RequestContext: value,
		PoliciesChecked: new(int32(3)), EvaluatedAt: timestamppb.New(time.UnixMicro(1_700_000_000_000_001)),
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// must fails the test with an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails the test unless the error is of that kind.
func wants(t *testing.T, err, kind error) *policysidecar.Error {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("%v, and not %v", err, kind)
	}
	var told *policysidecar.Error
	errors.As(err, &told)
	return told
}

// proxy stands between a client and the sidecar, and can keep back what is said.
type proxy struct {
	address string
	mutex   sync.Mutex
	open    []net.Conn
	count   int
	// What is kept back from now on.
	requests, answers bool
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	p := &proxy{address: listener.Addr().String()}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", shared.Address)
			if err != nil {
				near.Close()
				continue
			}
			p.mutex.Lock()
			p.open = append(p.open, near, far)
			p.count++
			p.mutex.Unlock()
			go p.pass(near, far, &p.requests)
			go p.pass(far, near, &p.answers)
		}
	}()
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) pass(from, to net.Conn, kept *bool) {
	defer to.Close()
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		p.mutex.Lock()
		drop := *kept
		p.mutex.Unlock()
		if drop {
			continue
		}
		if _, err := to.Write(piece[:n]); err != nil && err != io.EOF {
			return
		}
	}
}

// keep says what is kept back from now on.
func (p *proxy) keep(requests, answers bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.requests, p.answers = requests, answers
}

// accepted is how many connections there have been.
func (p *proxy) accepted() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.count
}

// cut ends the connections there are, and lets new ones speak.
func (p *proxy) cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, connection := range p.open {
		connection.Close()
	}
	p.open, p.requests, p.answers = nil, false, false
}
