//go:build sabotage

package sabotage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/probe"
)

// sabotage is a server without a check, or without one and those behind it that
// would hold in its place.
type sabotage struct {
	name  string
	edits []edit
	in    setting // nil is development
	// leaks are the cells in which it is to be caught: each of them must leak.
	leaks []cells
	// holds are those in which another check stops what this one would have: the
	// right one does not get its own there either, and nobody anything else.
	holds []cells
}

// edit replaces the one place in a file of the module that reads so.
type edit struct{ file, check, dropped string }

// cells are those of every one of the ways with every one of the keys.
type cells struct{ ways, keys []string }

const (
	serverDeadline = 30 * time.Second
	probeDeadline  = 2 * time.Minute
	cellTimeout    = "5s" // of a cell that hangs, since what it waits for was sabotaged too
)

// TestNothingDropped is the control: the probe finds nothing in the server as it
// is, and leaves no cell out.
func TestNothingDropped(t *testing.T) {
	real := build(t, nil)
	for name, in := range map[string]setting{"development": nil, "in memory": inMemory, "issued": issued} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantAllPass(t, runProbe(t, real, start(t, real, in), 0))
		})
	}
}

func wantAllPass(t *testing.T, report *probe.Report) {
	t.Helper()
	if n := len(probe.Ways()) * len(twinrail.Keys()); len(report.Cells) != n {
		t.Errorf("%d cells, want %d", len(report.Cells), n)
	}
	for _, c := range report.Cells {
		if c.Outcome != probe.Pass || len(c.Notes) > 0 {
			t.Errorf("%s, %s: %s: %s %q", c.Way, c.Key, c.Outcome, c.Detail, c.Notes)
		}
	}
}

// TestSabotage drops every check of the table.
func TestSabotage(t *testing.T) {
	real := build(t, nil)
	for _, s := range table {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			// A connection that another tenant can take over would be counted off
			// that one's, and end the process, if connections were counted.
			at := start(t, build(t, s.edits), s.in, "--max-connections", "0")
			for _, c := range s.leaks {
				wantAll(t, real, at, c, probe.Leak)
			}
			for _, c := range s.holds {
				wantAll(t, real, at, c, probe.Broken)
			}
		})
	}
}

// wantAll requires that each of the cells comes to that.
func wantAll(t *testing.T, real string, at served, c cells, outcome probe.Outcome) {
	t.Helper()
	args := append(repeat("--only", c.ways), repeat("--key", c.keys)...)
	report := runProbe(t, real, at, 1, args...)
	if len(report.Cells) != len(c.ways)*len(c.keys) {
		t.Errorf("%d cells, want those of %v with %v", len(report.Cells), c.ways, c.keys)
	}
	for _, cell := range report.Cells {
		if cell.Outcome != outcome {
			t.Errorf("%s, %s: %s, want %s: %s", cell.Way, cell.Key, cell.Outcome, outcome, cell.Detail)
		}
		t.Logf("%s, %s: %s", cell.Way, cell.Key, cell.Detail)
	}
}

func repeat(flag string, values []string) (args []string) {
	for _, v := range values {
		args = append(args, flag, v)
	}
	return args
}

// build builds the binary with the edits, and returns its path.
func build(t *testing.T, edits []edit) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replaced := make(map[string]string)
	for _, e := range edits {
		path := filepath.Join(root, filepath.FromSlash(e.file))
		if replaced[path] == "" {
			replaced[path] = copyOf(t, path, filepath.Join(dir, fmt.Sprintf("%d.go", len(replaced))))
		}
		apply(t, e, replaced[path])
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "twinrail")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags=-s -w", "-o", bin, "./cmd/twinrail")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func copyOf(t *testing.T, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// apply makes an edit. A check that is not where the table has it fails the test,
// so that it cannot move away unnoticed.
func apply(t *testing.T, e edit, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), e.check); n != 1 {
		t.Fatalf("%s has this %d times, and should once: bring the table up to date\n%s", e.file, n, e.check)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), e.check, e.dropped, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served is a server that runs, and what gives the probe its tokens.
type served struct {
	url    string
	tokens []string
}

// setting is how a server is run, and what the probe needs to be let in. Without
// one it is a development server, with its journal on disk.
type setting func(t *testing.T) (serve, tokens []string)

func inMemory(*testing.T) (serve, tokens []string) { return []string{"--journal", "memory"}, nil }

// issued has the server know the public key of an issuer alone, and expect its iss
// and aud.
func issued(t *testing.T) (serve, tokens []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	privateFile := writePEM(t, "PRIVATE KEY", private, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	publicFile := writePEM(t, "PUBLIC KEY", public, err)
	const issuer, audience = "https://id.example.com", "rt"
	return []string{"--auth-public-key-file", publicFile, "--auth-issuer", issuer, "--auth-audience", audience},
		[]string{"--key-a", privateFile, "--issuer", issuer, "--audience", audience}
}

func writePEM(t *testing.T, kind string, der []byte, err error) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key.pem")
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs the binary as a server, in an empty directory, until the test ends.
func start(t *testing.T, bin string, in setting, flags ...string) served {
	t.Helper()
	data := t.TempDir()
	s := served{tokens: []string{"--data", data}}
	if in != nil {
		serve, tokens := in(t)
		s.tokens, flags = append(s.tokens, tokens...), append(flags, serve...)
	}
	ctx, stop := context.WithCancel(context.Background())
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data", data, "--log-format", "json"}, flags...)
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env = t.TempDir(), plainEnv()
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		stop()
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	url := make(chan string, 1)
	reading.Go(func() { follow(log, url) })
	t.Cleanup(func() {
		stop()
		reading.Wait()
		_ = cmd.Wait() // killed
	})
	select {
	case s.url = <-url:
	case <-time.After(serverDeadline):
	}
	if s.url == "" {
		t.Fatal("the server did not say where it listens")
	}
	return s
}

// follow reads a server's log to its end, and tells where it listens.
func follow(log io.Reader, url chan<- string) {
	defer close(url)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var record struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Msg == "listening" {
			url <- record.URL
		}
	}
}

// plainEnv is the environment without what a developer has set for twinrail.
func plainEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TWINRAIL_") })
}

// runProbe runs the probe, which must exit with that status, and returns what it
// reports.
func runProbe(t *testing.T, bin string, at served, status int, args ...string) *probe.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), probeDeadline)
	defer cancel()
	args = slices.Concat([]string{"probe", "isolation", "--url", at.url, "--change-flags", "--timeout", cellTimeout, "--json"}, at.tokens, args)
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env = t.TempDir(), plainEnv()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("the probe exits with %d, want %d: %s", got, status, &stderr)
	}
	report := new(probe.Report)
	if err := json.Unmarshal(stdout.Bytes(), report); err != nil {
		t.Fatalf("%v: %s\n%s", err, &stdout, &stderr)
	}
	return report
}
