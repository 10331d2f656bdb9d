// Package sidecartest starts sidecars for tests, each with a database of its own that is gone with it.
package sidecartest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"policies.hoc/policysidecar"
)

// Sidecar is one that runs.
type Sidecar struct {
	// Address of gRPC, `host:port`.
	Address string `json:"grpc"`
	// HTTP is the address of Connect, gRPC-Web and JSON.
	HTTP string `json:"http"`
	// Database is the URL of its PostgreSQL.
	Database string `json:"database"`

	input io.Closer
	ended chan error
	kill  func() error
}

// Launch starts `serve --ephemeral` by the command in POLICY_SIDECAR_COMMAND, words separated by blanks, or else by
// `npx policy-sidecar`. It ends by Stop, or with this process.
func Launch() (*Sidecar, error) {
	words := strings.Fields(os.Getenv("POLICY_SIDECAR_COMMAND"))
	if len(words) == 0 {
		words = []string{"npx", "policy-sidecar"}
	}
	command := exec.Command(words[0], append(words[1:], "serve", "--ephemeral")...)
	command.Stderr = os.Stderr
	// A process that ends leaves no pipe open, and this one is how the sidecar knows.
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	sidecar := &Sidecar{input: input, ended: make(chan error, 1), kill: command.Process.Kill}
	lines := bufio.NewReader(output)
	line, err := lines.ReadBytes('\n')
	go func() {
		io.Copy(io.Discard, lines)
		sidecar.ended <- command.Wait()
	}()
	if err == nil {
		err = json.Unmarshal(line, sidecar)
	}
	if err != nil {
		sidecar.Stop()
		return nil, fmt.Errorf("%s did not start: %w", strings.Join(words, " "), err)
	}
	return sidecar, nil
}

// Stop ends it, and its database.
func (s *Sidecar) Stop() error {
	s.input.Close()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(20 * time.Second):
		return s.kill()
	}
}

// Start launches one for a test, and gives a client for it; both end with the test.
func Start(t testing.TB) (*Sidecar, *policysidecar.Client) {
	t.Helper()
	sidecar, err := Launch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sidecar.Stop() })
	client, err := policysidecar.Connect(sidecar.Address, policysidecar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return sidecar, client
}
