package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// The actors of the examples, which are those of their README.
const (
	exampleUser  = "u_ann"
	exampleAgent = "a_reviewer"
)

// TestExamples runs the page and the agent of the folder examples as a developer
// would, against the real binary, and has the network cut, the server killed and
// drained, the agent killed and the tokens replaced. In the end each has seen
// every event once and in order, and each commit was reviewed once.
func TestExamples(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	// Both are told soon that their tokens are about to end.
	x := startExamples(t, []string{"--ttl", "50s"}, "--drain-window", "500ms")
	x.renewal()
	for _, d := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"cut", func() { x.network.proxy.Stop(); time.Sleep(time.Second); x.network.start() }},
		{"kill -9", func() { x.gateway.kill(); x.gateway.start() }},
		{"drain", func() { x.gateway.terminate(); <-x.gateway.gone; x.gateway.start() }},
		{"kill -9 of the agent", func() { x.agent.kill(t); x.commit(); x.agent.start(t) }},
	} {
		d.do()
		x.commit()
		x.say(d.name)
		x.caughtUp(d.name)
	}
	for who, log := range map[string]string{"page": x.pageLog(), "agent": x.agent.log()} {
		if !strings.Contains(log, "resumed, after the cursor") && !strings.Contains(log, `"op":"resumed","resumed":true`) {
			t.Errorf("the %s has never resumed:\n%s", who, log)
		}
		if strings.Contains(log, "reset") || strings.Contains(log, "stopped") {
			t.Errorf("the %s:\n%s", who, log)
		}
	}
	x.signOut()
	x.agent.terminate(t)
	// The one that was killed leaves when its grace is over.
	eventually(t, "the agent has left", func() bool { return !x.present(exampleAgent) })
}

// TestExamplesLoseTheLog restarts a server that keeps nothing: the cookie, the
// session and every cursor are void. Both are told so once, and go on.
func TestExamplesLoseTheLog(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	x := startExamples(t, nil, "--journal", "memory")
	x.commit()
	x.say("before")
	x.caughtUp("before")
	x.gateway.kill()
	x.gateway.start()
	x.commits, x.lines = 0, 0
	eventually(t, "both are reset", func() bool {
		page, agent := x.pageLog(), x.agent.log()
		return strings.Contains(page, "canvas: reset, cursor_unknown") && strings.Contains(page, "thread: reset, cursor_unknown") &&
			strings.Contains(agent, `{"what":"canvas reset","reason":"cursor_unknown"`) && strings.Contains(agent, `{"what":"thread reset","reason":"cursor_unknown"`)
	})
	x.commit()
	x.say("after")
	x.caughtUp("after")
	if n := strings.Count(x.pageLog(), "reset"); n != 2 {
		t.Errorf("the page was reset %d times:\n%s", n, x.pageLog())
	}
}

// TestExamplesAreTested compares what the Node example would install with what the
// tests run it with.
func TestExamplesAreTested(t *testing.T) {
	type lock struct {
		Packages map[string]map[string]any `json:"packages"`
	}
	var example, tested lock
	for path, l := range map[string]*lock{"../examples/node": &example, ".": &tested} {
		text, err := os.ReadFile(filepath.Join(path, "package-lock.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, l); err != nil {
			t.Fatal(err)
		}
	}
	for name, p := range example.Packages {
		if name != "" && !reflect.DeepEqual(p, tested.Packages[name]) {
			t.Errorf("%s: the example has %v, and the tests %v", name, p["version"], tested.Packages[name]["version"])
		}
	}
}

// examples are both of them, before one server.
type examples struct {
	t       *testing.T
	gateway *gateway
	network *network
	browser *browser
	agent   *agentProcess
	tokens  string // the folder of the token files, one for each actor

	commits int
	lines   int // said by the page
}

const examplePage = "example"

// startExamples starts a server, and both before it, who have tokens made with these
// flags.
func startExamples(t *testing.T, token []string, flags ...string) *examples {
	t.Helper()
	x := &examples{t: t, tokens: t.TempDir()}
	origin := x.serve()
	x.gateway = startGateway(t, append(flags, "--allowed-origin", origin, "--insecure-cookies")...)
	x.network = startNetwork(t, x.gateway.addr)
	for _, actor := range []string{exampleUser, exampleAgent} {
		x.writeToken(actor, token...)
	}
	x.browser = startBrowser(t)
	server := "http://" + x.network.proxy.Listen
	x.browser.open(examplePage, origin+"/?server="+url.QueryEscape(server), nil)
	x.agent = newAgent(t, "TWINRAIL_URL="+server, "TWINRAIL_TOKEN_FILE="+filepath.Join(x.tokens, exampleAgent))
	x.agent.start(t)
	eventually(t, "both are present", func() bool {
		return strings.Contains(x.text("members"), exampleAgent+` {"status":"idle"}`) && x.present(exampleUser)
	})
	return x
}

// serve serves the page, and the token of its user, on an origin of their own,
// which it returns.
func (x *examples) serve() string {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("../examples/browser")))
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(x.tokens, exampleUser))
	})
	server := httptest.NewServer(mux)
	x.t.Cleanup(server.Close)
	return server.URL
}

func (x *examples) writeToken(actor string, flags ...string) {
	x.t.Helper()
	file := filepath.Join(x.tokens, actor)
	if err := os.WriteFile(file+".new", []byte(x.gateway.token(actor, flags...)+"\n"), 0o600); err != nil {
		x.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		x.t.Fatal(err)
	}
}

// renewal replaces the tokens, and waits until both have renewed both connections.
func (x *examples) renewal() {
	x.t.Helper()
	x.writeToken(exampleUser)
	x.writeToken(exampleAgent)
	eventually(x.t, "the page has renewed its token", func() bool {
		log := x.pageLog()
		return renewedUntil("canvas").MatchString(log) && renewedUntil("thread").MatchString(log)
	})
	eventually(x.t, "the agent has renewed its token", func() bool {
		return x.agent.out.contains(`{"what":"canvas renewed","status":200}`) && x.agent.out.contains(`{"what":"thread renewed"`)
	})
}

// renewedUntil matches the page's line of a rail's renewal, with a time in it.
func renewedUntil(rail string) *regexp.Regexp {
	return regexp.MustCompile(rail + `: renewed until \d{4}-\d\d-\d\dT`)
}

// text returns the text of an element of the page.
func (x *examples) text(id string) string {
	x.t.Helper()
	var text string
	x.eval(fmt.Sprintf("document.getElementById(%q).innerText", id), &text)
	return text
}

func (x *examples) pageLog() string { return x.text("log") }

func (x *examples) eval(script string, result any) {
	x.t.Helper()
	if err := json.Unmarshal(x.browser.mustCall(examplePage, "eval", script), result); err != nil {
		x.t.Fatalf("%s: %v", script, err)
	}
}

// do runs a script in the page that has no result.
func (x *examples) do(script string) {
	x.t.Helper()
	var done bool
	x.eval(script+"; true", &done)
}

func (x *examples) commit() {
	x.t.Helper()
	x.do("document.getElementById('commit').click()")
	x.commits++
}

func (x *examples) say(text string) {
	x.t.Helper()
	x.do(fmt.Sprintf("document.forms[0].text.value = %q; document.forms[0].requestSubmit()", text))
	x.lines++
}

// caughtUp waits until all that was done is in history and in the page, which has
// nothing else, and checks what the agent did.
func (x *examples) caughtUp(when string) {
	x.t.Helper()
	token := x.gateway.token(reader)
	for id, stream := range map[string]struct {
		routing twinrail.Routing
		events  int
	}{
		"canvas": {canvas("c1"), x.commits},
		"thread": {thread("th1"), x.lines + 2*x.commits},
	} {
		var history []json.RawMessage
		eventually(x.t, when+": all is in history", func() bool {
			history = x.gateway.history(token, stream.routing)
			return len(history) >= stream.events
		})
		if len(history) != stream.events {
			x.t.Fatalf("%s: %d events are in history of the %s, of %d", when, len(history), id, stream.events)
		}
		want := make([]string, len(history))
		for i, e := range history {
			want[i] = cursorOf(e)
		}
		var got []string
		eventually(x.t, when+": all is in the page", func() bool {
			x.eval(fmt.Sprintf("[...document.querySelectorAll('#%s li')].map((li) => li.dataset.cursor)", id), &got)
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			x.t.Fatalf("%s: the page saw %v of the %s, and history has %v\n%s", when, got, id, want, x.pageLog())
		}
		if id == "thread" {
			x.checkAgent(when, want)
		}
	}
}

// checkAgent checks that the agent saw the thread as the server keeps it. What was
// said while it was not there it has not seen, since it starts at the head.
func (x *examples) checkAgent(when string, want []string) {
	x.t.Helper()
	var got []string
	eventually(x.t, when+": the agent has caught up", func() bool {
		got = x.agent.saw()
		return len(got) > 0 && got[len(got)-1] == want[len(want)-1]
	})
	first := slices.Index(want, got[0])
	if first < 0 || !slices.Equal(got, want[first:]) {
		x.t.Fatalf("%s: the agent saw %v of the thread, and history has %v", when, got, want)
	}
	if x.agent.starts == 1 && len(got) != len(want) {
		x.t.Fatalf("%s: the agent saw %d events of %d", when, len(got), len(want))
	}
}

// present asks the server whether an actor is in the thread.
func (x *examples) present(actor string) bool {
	x.t.Helper()
	path := twinrail.PathPresence + "?" + query(thread("th1")).Encode()
	answer, err := x.gateway.call(x.t.Context(), http.MethodGet, path, x.gateway.token(reader), nil)
	if err != nil {
		x.t.Fatal(err)
	}
	var there twinrail.PresenceResponse
	if err := json.Unmarshal(answer, &there); err != nil {
		x.t.Fatal(err)
	}
	return slices.ContainsFunc(there.Members, func(m twinrail.PresenceMember) bool { return m.ActorID == actor })
}

func (x *examples) signOut() {
	x.t.Helper()
	x.do("document.getElementById('sign-out').click()")
	eventually(x.t, "the page has signed out", func() bool {
		log := x.pageLog()
		return strings.Contains(log, "canvas: end, credential_") && strings.Contains(log, "signed out") && !x.present(exampleUser)
	})
}

// agentProcess is the Node example, which can be started again with what it kept.
type agentProcess struct {
	dir    string
	env    []string
	cmd    *exec.Cmd
	out    *logBuffer // of the process that runs
	before []byte     // what those before it printed
	stderr *logBuffer // of all of them
	starts int
}

// newAgent copies the example to where it finds the packages of the tests.
func newAgent(t *testing.T, env ...string) *agentProcess {
	t.Helper()
	a := &agentProcess{dir: t.TempDir(), env: append(os.Environ(), env...), stderr: &logBuffer{}}
	packages, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(packages, filepath.Join(a.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent.js", "package.json"} {
		text, err := os.ReadFile(filepath.Join("../examples/node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		a.kill(t)
		if t.Failed() {
			t.Logf("the agent:\n%s\n%s", a.log(), a.stderr.tail(4<<10))
		}
	})
	return a
}

func (a *agentProcess) start(t *testing.T) {
	t.Helper()
	a.launch(t)
	eventually(t, "the agent is in the thread", func() bool { return a.out.contains(`"what":"thread open"`) })
}

// launch starts the process, and does not wait until it has got anywhere.
func (a *agentProcess) launch(t *testing.T) {
	t.Helper()
	a.cmd = exec.Command(require(t, findNode), "agent.js")
	a.cmd.Dir, a.cmd.Env = a.dir, a.env
	a.before = []byte(a.log())
	a.out = &logBuffer{}
	a.cmd.Stdout, a.cmd.Stderr = a.out, a.stderr
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.starts++
}

// log returns what all of them printed.
func (a *agentProcess) log() string {
	if a.out == nil {
		return ""
	}
	return string(append(a.before[:len(a.before):len(a.before)], a.out.tail(1<<20)...))
}

func (a *agentProcess) kill(t *testing.T) {
	t.Helper()
	if a.cmd != nil && a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill() // fails only where it has ended
		_ = a.cmd.Wait()         // it was killed
	}
}

// terminate asks the agent to end, which it must do as one whose work is done.
func (a *agentProcess) terminate(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() }) // fails only where it has ended
	defer timer.Stop()
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

// saw returns the cursors of the events of the thread that the agent that runs has
// seen since it was reset.
func (a *agentProcess) saw() []string {
	var cursors []string
	for line := range bytes.Lines(a.out.tail(1 << 20)) {
		var l struct{ What, Cursor string }
		switch err := json.Unmarshal(line, &l); {
		case err != nil: // a line that is not whole yet
		case l.What == "thread event":
			cursors = append(cursors, l.Cursor)
		case l.What == "thread reset":
			cursors = nil
		}
	}
	return cursors
}
