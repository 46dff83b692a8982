package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// patience bounds the waits for what must come. Only a test that fails waits so long.
const patience = 2 * time.Minute

// The tenant and env of all tests, and the rest of the home of its streams.
const (
	tenant = "t_acme"
	env    = "dev"
)

func home() twinrail.Routing {
	return twinrail.Routing{TenantID: tenant, Env: env, WorkspaceID: "w1", ProjectID: "p1", AppID: "studio"}
}

func canvas(id string) twinrail.Routing {
	r := home()
	r.CanvasID = id
	return r
}

func thread(id string) twinrail.Routing {
	r := home()
	r.ThreadID = id
	return r
}

// query returns the keys of r as query parameters.
func query(r twinrail.Routing) url.Values {
	q := url.Values{}
	for _, k := range twinrail.Keys() {
		if v := r.Get(k); v != "" {
			q.Set(k.String(), v)
		}
	}
	return q
}

// gateway is the real binary, serving on fixed ports with a data directory that
// outlives it.
type gateway struct {
	t     testing.TB
	bin   string
	data  string
	addr  string
	admin string
	flags []string
	log   *logBuffer
	cmd   *exec.Cmd
	gone  chan struct{} // closed when cmd has ended
}

// startGateway builds and starts a server; it is killed when the test ends.
func startGateway(t testing.TB, flags ...string) *gateway {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, bin: bin, data: t.TempDir(), addr: freeAddr(t), admin: freeAddr(t), flags: flags, log: &logBuffer{}}
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("the server's log:\n%s", g.log.tail(8<<10))
		}
		if g.log.contains("DATA RACE") {
			t.Errorf("the server has a data race:\n%s", g.log.tail(32<<10))
		}
	})
	g.start()
	return g
}

// given are the addresses that freeAddr has returned. Whoever has one may be down
// for a while.
var given sync.Map

// freeAddr returns a loopback address that nobody listens on, each one once. Its
// port is below those that systems give to outgoing connections, or a client that
// dials it while the server is down might connect to itself.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if _, taken := given.LoadOrStore(addr, true); !taken {
			return addr
		}
	}
	t.Fatal("found no free port")
	return ""
}

// start runs the binary and waits until it is ready.
func (g *gateway) start() {
	g.t.Helper()
	args := append([]string{"serve", "--listen", g.addr, "--admin-listen", g.admin, "--data", g.data}, g.flags...)
	cmd := g.command(args...)
	cmd.Stdout, cmd.Stderr = g.log, g.log
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	g.cmd, g.gone = cmd, gone
	deadline := time.After(patience)
	for {
		if resp, err := http.Get("http://" + g.admin + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-gone:
			g.t.Fatalf("the server ended at its start:\n%s", g.log.tail(8<<10))
		case <-deadline:
			g.t.Fatalf("the server is not ready after %v", patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// command returns the binary as a command, configured by its arguments alone.
func (g *gateway) command(args ...string) *exec.Cmd {
	cmd := exec.Command(g.bin, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TWINRAIL_") })
	return cmd
}

// terminate asks the process to end, with SIGTERM: it drains.
func (g *gateway) terminate() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
}

// kill ends the process with SIGKILL: it runs no line of its own after that.
func (g *gateway) kill() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill() // fails only where it has ended
		<-g.gone
	}
}

// token mints a development token for an actor, as a developer would.
func (g *gateway) token(actor string, flags ...string) string {
	g.t.Helper()
	args := append([]string{"token", "--data", g.data, "--tenant", tenant, "--env", env, "--actor", actor}, flags...)
	cmd := g.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		g.t.Fatalf("twinrail token: %v\n%s", err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// credentials returns the headers of a request of the token's holder.
func credentials(token string) http.Header {
	return http.Header{
		"Authorization":             {"Bearer " + token},
		twinrail.KeyTenant.Header(): {tenant},
		twinrail.KeyEnv.Header():    {env},
	}
}

func (g *gateway) call(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+g.addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = credentials(token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &statusError{resp.StatusCode, answer}
	}
	return answer, err
}

// statusError is an answer that is not 200.
type statusError struct {
	code int
	body []byte
}

func (e *statusError) Error() string { return fmt.Sprintf("%d: %s", e.code, e.body) }

// publish sends events once; the body is put together by hand, so that their data
// goes out byte for byte.
func (g *gateway) publish(ctx context.Context, token string, events []draft) ([]twinrail.PublishResult, error) {
	body := []byte(`{"events":[`)
	for i, e := range events {
		if i > 0 {
			body = append(body, ',')
		}
		body = e.append(body)
	}
	answer, err := g.call(ctx, http.MethodPost, twinrail.PathPublish, token, append(body, "]}"...))
	if err != nil {
		return nil, err
	}
	var response twinrail.PublishResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, err
	}
	if len(response.Results) != len(events) {
		return nil, fmt.Errorf("%d results for %d events", len(response.Results), len(events))
	}
	return response.Results, nil
}

// history reads a whole stream as the token's holder may see it.
func (g *gateway) history(token string, r twinrail.Routing) []json.RawMessage {
	g.t.Helper()
	var events []json.RawMessage
	q := query(r)
	q.Set("limit", "1000")
	for range 1000 {
		answer, err := g.call(g.t.Context(), http.MethodGet, twinrail.PathHistory+"?"+q.Encode(), token, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		var page twinrail.HistoryPage
		if err := json.Unmarshal(answer, &page); err != nil {
			g.t.Fatal(err)
		}
		events = append(events, page.Events...)
		if page.Next == page.Head {
			return events
		}
		q.Set("after", page.Next)
	}
	g.t.Fatal("history has no end")
	return nil
}

// metricSum returns the sum over all labels of a metric, or the value of the one
// whose labels are given; 0 where there is none yet.
func (g *gateway) metricSum(name string) float64 {
	g.t.Helper()
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			g.t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// eventually waits until reached holds.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}

// draft is an event to be published. Its data goes out as it is.
type draft struct {
	id      string
	channel twinrail.Channel
	routing twinrail.Routing
	to      string // an actor who alone receives it, or ""
	data    string
}

func (e draft) append(dst []byte) []byte {
	routing, _ := json.Marshal(e.routing) // strings only
	dst = fmt.Appendf(dst, `{"id":%q,"channel":%q,"type":"note","routing":%s`, e.id, e.channel, routing)
	if e.to != "" {
		dst = fmt.Appendf(dst, `,"to":[%q]`, e.to)
	}
	return fmt.Appendf(dst, `,"data":%s}`, e.data)
}

// logBuffer keeps what a process printed.
type logBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *logBuffer) tail(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b[max(0, len(l.b)-n):])
}

func (l *logBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b, []byte(s))
}
