package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// TestExamplesAfterARevocation revokes the tokens of both while they are cut off, and
// gives them new ones. What they would resume with was made with the old ones: it is
// refused, and they join anew.
func TestExamplesAfterARevocation(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	x := startExamples(t, nil)
	x.network.proxy.Stop()
	admin := x.gateway.token("u_admin")
	for _, actor := range []string{exampleUser, exampleAgent} {
		if _, err := x.gateway.call(t.Context(), http.MethodPost, twinrail.PathRevocations, admin, fmt.Appendf(nil, `{"actor_id":%q}`, actor)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second) // a token is issued at a whole second
	x.writeToken(exampleUser)
	x.writeToken(exampleAgent)
	x.network.start()
	eventually(t, "both have joined anew", func() bool {
		return strings.Count(x.pageLog(), "thread: joined") == 2 && strings.Count(x.agent.log(), `"op":"joined"`) == 2
	})
	for who, log := range map[string]string{"page": x.pageLog(), "agent": x.agent.log()} {
		if !strings.Contains(log, "credential_revoked") {
			t.Errorf("the %s was not refused:\n%s", who, log)
		}
	}
}

// TestExamplesWaitAsLongAsTheServerAsks has a server that is busy, and says for how
// long.
func TestExamplesWaitAsLongAsTheServerAsks(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	const asked = 4 * time.Second
	x := &examples{t: t, tokens: t.TempDir()}
	origin := x.serve()
	for _, actor := range []string{exampleUser, exampleAgent} {
		if err := os.WriteFile(filepath.Join(x.tokens, actor), []byte("token\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	busy := newBusyServer(t, origin, asked)
	x.browser = startBrowser(t)
	x.browser.open(examplePage, origin+"/?server="+url.QueryEscape(busy.URL), nil)
	x.agent = newAgent(t, "TWINRAIL_URL="+busy.URL, "TWINRAIL_TOKEN_FILE="+filepath.Join(x.tokens, exampleAgent))
	x.agent.launch(t)
	for _, path := range []string{twinrail.PathSession, twinrail.PathSSECanvases + "c1", twinrail.PathWS} {
		eventually(t, "a second request to "+path, func() bool { return len(busy.seen(path)) >= 2 })
		if at := busy.seen(path); at[1].Sub(at[0]) < asked-50*time.Millisecond { // a timer may be a little early
			t.Errorf("%s was asked again after %v, before %v", path, at[1].Sub(at[0]), asked)
		}
	}
}

// busyServer refuses all requests for now.
type busyServer struct {
	*httptest.Server

	mu sync.Mutex
	at map[string][]time.Time // of the requests, by path
}

func newBusyServer(t *testing.T, origin string, after time.Duration) *busyServer {
	b := &busyServer{at: map[string][]time.Time{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Allow-Origin": origin, "Allow-Credentials": "true", "Allow-Headers": "Authorization, Content-Type", "Expose-Headers": "Retry-After",
		} {
			w.Header().Set("Access-Control-"+name, value)
		}
		if r.Method == http.MethodOptions {
			return
		}
		b.mu.Lock()
		b.at[r.URL.Path] = append(b.at[r.URL.Path], time.Now())
		b.mu.Unlock()
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", fmt.Sprint(int(after.Seconds())))
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"title":"busy","status":503,"code":"overloaded","retry":"backoff"}`)
	}))
	t.Cleanup(b.Server.Close)
	return b
}

func (b *busyServer) seen(path string) []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[path]
}
