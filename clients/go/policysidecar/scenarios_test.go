package policysidecar_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"policies.hoc/policysidecar"
)

// step is one of a scenario, which is what holds of any sidecar; docs/contract-scenarios.md says what its keys mean.
type step struct {
	Call        string            `json:"call"`
	Leave       string            `json:"leave"`
	Request     any               `json:"request"`
	Transaction string            `json:"transaction"`
	Headers     map[string]string `json:"headers"`
	Take        int               `json:"take"`
	Keep        string            `json:"keep"`
	WithinMs    int               `json:"within_ms"`
	Expect      expectation       `json:"expect"`
	Capture     map[string]string `json:"capture"`
}

type expectation struct {
	Response any            `json:"response"`
	Rows     any            `json:"rows"`
	Error    map[string]any `json:"error"`
}

// errNotGranted: the caller of the run may not do what the scenario does.
var errNotGranted = errors.New("not granted")

// run is one run of a scenario, and all that it has begun.
type run struct {
	connection   *grpc.ClientConn
	variables    *variables
	transactions []string
	streams      map[string]func()
}

func (r *run) do(raw json.RawMessage) error {
	var step step
	filled, err := r.variables.fill(raw)
	if err == nil {
		err = json.Unmarshal(filled, &step)
	}
	if err != nil {
		return err
	}
	if step.Call == "" {
		r.streams[step.Leave]()
		return nil
	}
	for until := time.Now().Add(time.Duration(step.WithinMs) * time.Millisecond); ; time.Sleep(50 * time.Millisecond) {
		reply, err := r.send(step)
		if err != nil {
			return err
		}
		problem := step.Expect.problem(reply)
		if problem == "" {
			return r.capture(step, reply)
		}
		if reason := reply.refusal["reason"]; reason == "NOT_ALLOWED" || reason == "OUTSIDE_TENANTS" {
			return errNotGranted
		}
		if !time.Now().Before(until) {
			return fmt.Errorf("%s: %s", step.Call, problem)
		}
	}
}

func (r *run) send(step step) (reply, error) {
	reply, leave, err := invoke(r.connection, step)
	if err != nil {
		return reply, err
	}
	if step.Keep != "" {
		r.streams[step.Keep] = leave
	} else {
		leave()
	}
	if id, ok := at(reply.first(), "transaction.id").(string); ok &&
		(step.Call == "TransactionService/Begin" || step.Call == "TransactionService/Hold") {
		r.transactions = append(r.transactions, id)
	}
	return reply, nil
}

func (r *run) capture(step step, reply reply) error {
	for name, path := range step.Capture {
		value := at(reply.first(), path)
		if value == nil {
			return fmt.Errorf("%s: the answer has no %s", step.Call, path)
		}
		r.variables.values[name] = value
	}
	return nil
}

// end leaves nothing open.
func (r *run) end() {
	for _, leave := range r.streams {
		leave()
	}
	for _, id := range r.transactions {
		r.send(step{Call: "TransactionService/Rollback", Request: map[string]any{"transactionId": id}})
	}
}

// play runs the steps of a file, and its cleanup whatever happened.
func play(connection *grpc.ClientConn, content []byte) error {
	var file struct {
		Steps, Cleanup []json.RawMessage
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return err
	}
	r := &run{connection: connection, variables: newVariables(), streams: map[string]func(){}}
	inOrder := func(steps []json.RawMessage) error {
		for i, step := range steps {
			if err := r.do(step); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		return nil
	}
	failed := inOrder(file.Steps)
	r.end()
	if failed == nil {
		return inOrder(file.Cleanup)
	}
	for _, step := range file.Cleanup {
		if r.variables.knows(step) {
			r.do(step)
		}
	}
	return failed
}

var names = regexp.MustCompile(`"?\{\{([\w.]+)\}\}"?`)

// variables are what `{{name}}` stands for in one run.
type variables struct{ values map[string]any }

func newVariables() *variables {
	return &variables{map[string]any{
		"now": time.Now().UTC().Format(time.RFC3339Nano), "run": policysidecar.NewUUID()[:8],
	}}
}

func (v *variables) knows(raw json.RawMessage) bool {
	for _, found := range names.FindAllSubmatch(raw, -1) {
		if name := string(found[1]); v.values[name] == nil && !strings.HasPrefix(name, "uuid.") {
			return false
		}
	}
	return true
}

// fill puts everything in its place; a text that is nothing but a name becomes what it stands for.
func (v *variables) fill(raw json.RawMessage) (json.RawMessage, error) {
	var missing error
	filled := names.ReplaceAllFunc(raw, func(found []byte) []byte {
		name := string(names.FindSubmatch(found)[1])
		if v.values[name] == nil && strings.HasPrefix(name, "uuid.") {
			v.values[name] = policysidecar.NewUUID()
		}
		value, ok := v.values[name]
		if !ok {
			missing = fmt.Errorf("nothing was captured as %s", name)
		}
		text, _ := json.Marshal(value)
		before, after := found[0] == '"', found[len(found)-1] == '"'
		if before && after {
			return text
		}
		inner := strings.Trim(string(text), `"`)
		if before {
			inner = `"` + inner
		}
		if after {
			inner += `"`
		}
		return []byte(inner)
	})
	return filled, missing
}

func TestTheScenariosOfTheContractHold(t *testing.T) {
	folder := os.Getenv("POLICY_SIDECAR_SCENARIOS")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "scenarios")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	must(t, err)
	connection, err := grpc.NewClient(shared.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer connection.Close()
	passed, skipped := 0, 0
	for _, file := range files {
		if strings.HasSuffix(file, ".schema.json") {
			continue
		}
		content, err := os.ReadFile(file)
		must(t, err)
		switch err := play(connection, content); {
		case err == nil:
			passed++
		case errors.Is(err, errNotGranted):
			skipped++
		default:
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	if passed == 0 {
		t.Errorf("no scenarios in %s", folder)
	}
	fmt.Printf("scenarios: %d passed, %d skipped\n", passed, skipped)
}
