package test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// errMissing says what must be installed for a client to run.
type errMissing string

func (e errMissing) Error() string { return string(e) }

// findNode returns the path of Node.js, where the npm packages are there too.
func findNode() (string, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return "", errMissing("install Node.js 20 or newer")
	}
	if _, err := os.Stat(filepath.Join("node_modules", "playwright-core")); err != nil {
		return "", errMissing("run npm ci in the folder test")
	}
	return node, nil
}

// findChromium returns the path of a Chromium, where there is Node.js to drive it.
func findChromium() (string, error) {
	if _, err := findNode(); err != nil {
		return "", err
	}
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if name := os.Getenv("TWINRAIL_CHROMIUM"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errMissing("install Chromium (for Debian: apt-get install chromium), or name one in TWINRAIL_CHROMIUM")
}

// require returns what find found. Where something is not installed it skips the
// test, or fails it where all clients are required.
func require(t testing.TB, find func() (string, error)) string {
	t.Helper()
	path, err := find()
	switch {
	case err == nil:
	case os.Getenv("TWINRAIL_REQUIRE_ORACLES") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

// slow skips a test that takes more than some seconds under go test -short.
func slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes its time; run without -short")
	}
}

// node runs a script of this folder, and calls line with each line that it
// prints. Its input is open until the test ends; then the script must end too.
func node(t testing.TB, line func([]byte), script string, args ...string) io.Writer {
	t.Helper()
	cmd := exec.Command(require(t, findNode), append([]string{script}, args...)...)
	stderr := &logBuffer{}
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			line(lines.Bytes())
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		select {
		case <-read:
		case <-time.After(patience):
			t.Errorf("%s did not end with its input", script)
			_ = cmd.Process.Kill() // fails only where it has ended
			<-read
		}
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("%s: %v\n%s", script, err, stderr.tail(4<<10))
		}
	})
	return stdin
}

// nodeLine is a line of a script that follows, or a value that a page emitted.
type nodeLine struct {
	Open bool   `json:"open"`
	ID   string `json:"id"`
	Data string `json:"data"`
	Bad  string `json:"bad"`
}

// take records what a script or a page said. Of a frame only the event counts.
func (f *follower) take(text []byte) {
	var l nodeLine
	if err := json.Unmarshal(text, &l); err != nil {
		f.failed(err.Error() + ": " + string(text))
		return
	}
	switch {
	case l.Bad != "":
		f.failed(l.Bad)
	case l.Open:
		f.opened()
	default:
		f.saw(l.ID, eventOf(l.Data))
	}
}

// eventOf returns the JSON of the event in the frame text, or text where it is
// an event itself.
func eventOf(text string) string {
	var frame twinrail.ServerFrame
	if err := json.Unmarshal([]byte(text), &frame); err == nil && frame.Op == twinrail.OpEvent {
		return string(frame.Event)
	}
	return text
}

// nodeInput is the argument of a script that follows.
type nodeInput struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Routing twinrail.Routing  `json:"routing"`
	Gate    string            `json:"gate"`
}

// flat returns headers as a script takes them.
func flat(h http.Header) map[string]string {
	m := make(map[string]string)
	for name := range h {
		m[name] = h.Get(name)
	}
	return m
}

func followNode(t testing.TB, name, script, url string, tg target) *follower {
	t.Helper()
	f := newFollower(name)
	input, err := json.Marshal(nodeInput{url, flat(credentials(tg.token)), tg.routing, tg.gate.path()})
	if err != nil {
		t.Fatal(err)
	}
	node(t, f.take, script, string(input))
	return f
}

// followNodeSSE follows a canvas with npm's eventsource.
func followNodeSSE(t testing.TB, tg target) *follower {
	t.Helper()
	return followNode(t, "npm eventsource", "follow-eventsource.mjs", tg.sseURL(), tg)
}

// followNodeWS follows a thread with npm's ws.
func followNodeWS(t testing.TB, tg target) *follower {
	t.Helper()
	return followNode(t, "npm ws", "follow-ws.mjs", tg.wsURL(), tg)
}
