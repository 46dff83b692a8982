package probe_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/probe"
	"github.com/twinrail/twinrail/internal/server"
	"github.com/twinrail/twinrail/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is the time of a cell on a machine that may be busy.
const patient = time.Minute

// secret signs the tokens of both tenants.
var secret = bytes.Repeat([]byte("k"), auth.MinSecret)

// target is a server on a loopback port, behind the given handlers, in which all may
// pass gestures on.
func target(t *testing.T, front ...func(http.Handler) http.Handler) probe.Target {
	t.Helper()
	handler := handler(t)
	for _, f := range front {
		handler = f(handler)
	}
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	return probe.Target{URL: web.URL, Tokens: minted(t)}
}

func minted(t *testing.T) probe.Tokens {
	t.Helper()
	return signed(t, secretSigner(t))
}

// signed returns tokens of two tenants that are signed so.
func signed(t *testing.T, key *auth.Signer) probe.Tokens {
	t.Helper()
	tokens, err := probe.NewMinted(probe.Signer{TenantID: "t_a", Key: key}, probe.Signer{TenantID: "t_b", Key: key}, "dev", "staging")
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func secretSigner(t *testing.T) *auth.Signer {
	t.Helper()
	key, err := auth.NewSigner(auth.SignerOptions{Key: auth.Key{Material: secret}})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// handler is that of a server.
func handler(t *testing.T) http.Handler {
	t.Helper()
	return handlerFor(t, auth.VerifierOptions{Keys: []auth.Key{{Material: secret}}}, secretSigner(t))
}

// handlerFor is that of a server that takes such tokens, in which all may pass
// gestures on. The key signs for Tenant-0.
func handlerFor(t *testing.T, o auth.VerifierOptions, key *auth.Signer) http.Handler {
	t.Helper()
	verifier, err := auth.NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := auth.NewGate(auth.GateOptions{Verifier: verifier, InsecureCookies: true})
	if err != nil {
		t.Fatal(err)
	}
	flags, err := feature.Open(new(table.Memory), feature.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{Journal: journal.NewMemory(journal.MemoryOptions{}), Gate: gate, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, env := range []string{"dev", "staging"} {
		allowGestures(t, s.Handler(), key, env)
	}
	return s.Handler()
}

// allowGestures has Tenant-0 switch gestures on for all tenants.
func allowGestures(t *testing.T, h http.Handler, key *auth.Signer, env string) {
	t.Helper()
	token, err := key.Mint(twinrail.Identity{TenantID: "t_0", Env: env, ActorID: "u_owner", ActorType: twinrail.Human, Role: twinrail.Owner}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPut, twinrail.PathFlags+"/gesture_fanout?tenant_id=t_0&env="+env, strings.NewReader(`{"value":true}`))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Fatalf("gesture_fanout: %d %s", w.Code, w.Body)
	}
}

// token returns one that is granted everything.
func token(t *testing.T, tenant, env, actor string) string {
	t.Helper()
	text, err := minted(t).Token(probe.Want{TenantID: tenant, Env: env, ActorID: actor})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// following are the ways to follow a stream and to publish to it.
var following = []string{
	"sse-live", "sse-replay", "ws-live", "ws-replay", "ws-resume", "history", "publish-http", "publish-ws", "gestures",
}

// forging are those of them in which tokens are tried that are signed and not good.
var forging = []string{"sse-live", "ws-live", "history", "publish-http"}

// TestFixedTokens has no signing keys: what two broad tokens can show is shown, and
// of the rest it is said why not.
func TestFixedTokens(t *testing.T) {
	for _, f := range []struct {
		name string
		b    string
		runs twinrail.Key // and no other of the three that a credential settles
	}{
		{"two tenants", token(t, "t_b", "dev", "u_2"), twinrail.KeyTenant},
		{"two envs", token(t, "t_a", "staging", "u_1"), twinrail.KeyEnv},
	} {
		t.Run(f.name, func(t *testing.T) {
			at := target(t)
			var err error
			if at.Tokens, err = probe.NewFixed(token(t, "t_a", "dev", "u_1"), f.b); err != nil {
				t.Fatal(err)
			}
			report, err := probe.Run(t.Context(), at, probe.Options{Ways: following, Timeout: patient})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range report.Cells {
				settled := c.Key == "tenant_id" || c.Key == "env" || c.Key == "actor_id"
				switch {
				case settled && c.Key != f.runs.String():
					if c.Outcome != probe.Skipped || !strings.Contains(c.Detail, "needs") {
						t.Errorf("%s, %s: %s: %s", c.Way, c.Key, c.Outcome, c.Detail)
					}
				case c.Outcome != probe.Pass, (settled && !slices.Contains(forging, c.Way)) != (len(c.Notes) == 0):
					t.Errorf("%s, %s: %s: %s %q", c.Way, c.Key, c.Outcome, c.Detail, c.Notes)
				}
			}
		})
	}
}

// TestPrivateKey plays the whole matrix against a server that knows the public key
// alone, and takes no token without the iss and aud that it expects.
func TestPrivateKey(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	options := auth.SignerOptions{Key: auth.Key{Material: private}, Issuer: "https://id.example.com", Audiences: []string{"rt"}}
	key, err := auth.NewSigner(options)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handlerFor(t, auth.VerifierOptions{
		Keys: []auth.Key{{Material: private.Public()}}, Issuer: options.Issuer, Audiences: options.Audiences,
	}, key))
	t.Cleanup(web.Close)
	report, err := probe.Run(t.Context(), probe.Target{URL: web.URL, Tokens: signed(t, key)}, probe.Options{Timeout: patient, ChangeFlags: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(probe.Ways()) * len(twinrail.Keys()); len(report.Cells) != n {
		t.Errorf("%d cells, want %d", len(report.Cells), n)
	}
	for _, c := range report.Cells {
		if c.Outcome != probe.Pass || len(c.Notes) > 0 {
			t.Errorf("%s, %s: %s: %s %q", c.Way, c.Key, c.Outcome, c.Detail, c.Notes)
		}
	}
}

// TestTLS is over HTTP/2, and WebSockets over TLS, with the client's own roots.
func TestTLS(t *testing.T) {
	web := httptest.NewUnstartedServer(handler(t))
	web.EnableHTTP2 = true
	web.StartTLS()
	t.Cleanup(web.Close)
	at := probe.Target{URL: web.URL, Tokens: minted(t), Client: web.Client()}
	report, err := probe.Run(t.Context(), at, probe.Options{
		Ways: []string{"sse-live", "ws-live", "history"}, Keys: []twinrail.Key{twinrail.KeyTenant, twinrail.KeyPanel},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(report.Of(probe.Pass)); n != 6 {
		t.Errorf("%+v", report.Cells)
	}
}

// TestDefaultTransportIsAnother: a program may have put something else in its place.
func TestDefaultTransportIsAnother(t *testing.T) {
	at, was := target(t), http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = was })
	http.DefaultTransport = struct{ http.RoundTripper }{was}
	report, err := probe.Run(t.Context(), at, probe.Options{Ways: []string{"history"}, Keys: []twinrail.Key{twinrail.KeyTenant}})
	if err != nil || len(report.Of(probe.Pass)) != 1 {
		t.Errorf("%v, %+v", err, report)
	}
}

// TestReport: in the order of the ways and keys, whatever was run, and narrow enough
// for a terminal.
func TestReport(t *testing.T) {
	at := target(t)
	report, err := probe.Run(t.Context(), at, probe.Options{
		Ways: []string{"history", "sse-live"}, Keys: []twinrail.Key{twinrail.KeyActor, twinrail.KeyTenant},
	})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, c := range report.Cells {
		order = append(order, c.Way+" "+c.Key)
	}
	if want := []string{"sse-live tenant_id", "sse-live actor_id", "history tenant_id", "history actor_id"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
	report.Cells[1].Outcome, report.Cells[1].Detail = probe.Leak, "somebody saw something"
	report.Cells[3].Outcome, report.Cells[3].Detail = probe.Broken, "it did not come"
	if l, b := report.Leaks(), report.Broken(); len(l) != 1 || l[0].Key != "actor_id" || len(b) != 1 || b[0].Way != "history" {
		t.Errorf("leaks %+v, broken %+v", l, b)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sse-live, actor_id: somebody saw something", "history, actor_id: it did not come", "2 pass  1 leak  1 broken  0 skipped\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	for line := range strings.Lines(text.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 100 {
			t.Errorf("a line of more than 100: %s", line)
		}
	}
	var decoded probe.Report
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &decoded); err != nil || decoded.Target != at.URL || len(decoded.Cells) != 4 || decoded.Cells[1].Outcome != probe.Leak {
		t.Errorf("%v: %s", err, b)
	}
}

// TestRunRefuses what there is no way to run.
func TestRunRefuses(t *testing.T) {
	good := probe.Target{URL: "http://127.0.0.1:1", Tokens: minted(t)}
	for _, c := range []struct {
		target  probe.Target
		options probe.Options
	}{
		{probe.Target{URL: "127.0.0.1:1", Tokens: good.Tokens}, probe.Options{}},
		{probe.Target{URL: "ftp://127.0.0.1", Tokens: good.Tokens}, probe.Options{}},
		{probe.Target{URL: "http://u:p@127.0.0.1", Tokens: good.Tokens}, probe.Options{}},
		{probe.Target{URL: good.URL}, probe.Options{}},
		{good, probe.Options{Ways: []string{"by night"}}},
	} {
		if r, err := probe.Run(t.Context(), c.target, c.options); err == nil {
			t.Errorf("%+v %+v: %+v", c.target, c.options, r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := probe.Run(ctx, good, probe.Options{Ways: following, Timeout: patient})
	if err == nil || len(report.Broken()) != len(report.Cells) {
		t.Errorf("an ended context: %v, %d of %d broken", err, len(report.Broken()), len(report.Cells))
	}
}

// TestTokens: what cannot be a token, or signs none.
func TestTokens(t *testing.T) {
	key := secretSigner(t)
	a := probe.Signer{TenantID: "t_a", Key: key}
	for i, f := range []func() (probe.Tokens, error){
		func() (probe.Tokens, error) { return probe.NewMinted(a, a, "dev", "") },
		func() (probe.Tokens, error) {
			return probe.NewMinted(a, probe.Signer{TenantID: "b", Key: key}, "dev", "")
		},
		func() (probe.Tokens, error) { return probe.NewMinted(a, probe.Signer{TenantID: "t_b"}, "dev", "") },
		func() (probe.Tokens, error) {
			return probe.NewMinted(a, probe.Signer{TenantID: "t_b", Key: key}, "dev", "dev")
		},
		func() (probe.Tokens, error) { return probe.NewFixed("x", "y") },
		func() (probe.Tokens, error) { return probe.NewFixed("x.e30.z", "x.e30.z") },
	} {
		if tokens, err := f(); err == nil {
			t.Errorf("%d: %+v", i, tokens)
		} else if strings.Contains(fmt.Sprint(err), "kkkk") {
			t.Errorf("%d: the secret is in %v", i, err)
		}
	}
}
