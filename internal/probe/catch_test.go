package probe_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/probe"
)

// fault is something in front of a server that breaks its isolation.
type fault struct {
	name    string
	way     string
	key     twinrail.Key
	breaks  func(http.Handler) http.Handler
	outcome probe.Outcome
	detail  string // a part of it
}

var faults = []fault{
	{"an audience key gets lost", "sse-live", twinrail.KeyPanel, losePanel, probe.Leak, "who has another panel_id saw what is for the right one in an SSE stream"},
	{"an audience key gets lost, replay", "sse-replay", twinrail.KeyPanel, losePanel, probe.Leak, "who has no panel_id saw what is for the right one in an SSE stream"},
	{"everybody has all grants", "history", twinrail.KeyProject, grantAll, probe.Leak, "answered 200 in place of not_found"},
	{"everybody has all grants, WebSocket", "ws-resume", twinrail.KeyProject, grantAll, probe.Leak, "resumes the right one's subscription"},
	{"the stated tenant is not looked at", "publish-http", twinrail.KeyTenant, passOver(twinrail.KeyTenant), probe.Leak, "in place of context_mismatch"},
	{"the stated actor is not looked at", "sse-live", twinrail.KeyActor, passOver(twinrail.KeyActor), probe.Leak, "answered 200 in place of actor_mismatch"},
	{"something of a request in a header of another answer", "history", twinrail.KeyEnv, gossip, probe.Leak, "saw what is for"},
	{"what is there is refused in another way", "sse-live", twinrail.KeyWorkspace, tellKnown, probe.Leak, "is not answered as where there is nothing"},
	{"what a batch hides is refused as something else", "publish-http", twinrail.KeyPanel, refuseBatches(twinrail.Commit, twinrail.CodeBadRequest), probe.Leak, "behind an event of its own, and is answered 400 bad_request in place of not_found"},
	{"a batch is too much for the server", "publish-http", twinrail.KeyPanel, refuseBatches(twinrail.Commit, twinrail.CodeUnavailable), probe.Broken, "behind an event of its own: 503 unavailable"},
	{"too much for the server once something was revoked", "revocation", twinrail.KeyPanel, tiredBy(http.MethodPost, twinrail.PathRevocations), probe.Broken, "503 unavailable"},
	{"flags leak, and cannot be put back", "flags", twinrail.KeyTenant, both(passOver(twinrail.KeyTenant), refuseOf("t_a", http.MethodDelete, twinrail.PathFlags)), probe.Leak, "gesture_rate of t_a in dev was"},
	{"cookies leak, and cannot be ended", "cookies", twinrail.KeyPanel, both(passOverTickets, refuseOf("", http.MethodDelete, twinrail.PathSession)), probe.Leak, "is not ended: 503 unavailable"},
	{"a renewed stream ends for another reason", "sse-live", twinrail.KeyPanel, retell(`"code":"not_found"`, `"code":"internal"`), probe.Broken, `ended with {"code":"internal","reconnect":false}`},
	{"a renewed stream is to come back", "sse-live", twinrail.KeyPanel, retell(`"reconnect":false`, `"reconnect":true`), probe.Broken, `ended with {"code":"not_found","reconnect":true}`},
	{"of a key that is stated twice one is chosen", "presence-snapshot", twinrail.KeyApp, settle, probe.Leak, "states both its own and the right one's, and is answered 200 in place of context_conflict"},
	{"no key may be stated twice", "history", twinrail.KeyApp, refuseTwice, probe.Broken, "states its own app_id twice: 400 context_conflict"},
	{"an event's id is not looked at", "publish-http", twinrail.KeyCanvas, loseID, probe.Broken, "publishes an event again, and it is no duplicate"},
	{"every token is taken", "history", twinrail.KeyPanel, signAnew, probe.Leak, "a token of the right one's that has no signature, and is answered 200 in place of credential_invalid"},
	{"no other token than its own is taken", "sse-live", twinrail.KeyPanel, takeFirst, probe.Broken, "comes with a token like those that are forged: 401 credential_invalid"},
	{"nothing is let in", "ws-live", twinrail.KeyApp, refuse, probe.Broken, "the WebSocket was refused: 503 unavailable"},
}

// silences are faults that show when the time of a cell is up.
var silences = []fault{
	{"a batch is over a limit", "publish-http", twinrail.KeyActor, refuseBatches(twinrail.Artifact, twinrail.CodeRateLimited), probe.Broken, "deadline exceeded"},
	{"nothing is stored", "sse-live", twinrail.KeyApp, swallow, probe.Broken, "did not receive its own"},
	{"nothing is stored, WebSocket", "ws-live", twinrail.KeyApp, swallow, probe.Broken, "did not receive its own"},
	{"nothing is answered", "history", twinrail.KeyApp, hang, probe.Broken, "deadline exceeded"},
}

// TestFaultsAreCaught breaks isolation in front of a server that keeps it: the cell
// must say so. And what proves nothing must not pass.
func TestFaultsAreCaught(t *testing.T) {
	for timeout, faults := range map[time.Duration][]fault{patient: faults, 4 * time.Second: silences} {
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				report, err := probe.Run(t.Context(), target(t, f.breaks), probe.Options{
					Ways: []string{f.way}, Keys: []twinrail.Key{f.key}, Timeout: timeout, ChangeFlags: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				if c := report.Cells[0]; c.Outcome != f.outcome || !strings.Contains(c.Detail, f.detail) {
					t.Errorf("%s: %q, want %s: %q", c.Outcome, c.Detail, f.outcome, f.detail)
				}
			})
		}
	}
}

// losePanel takes the panel out of what is published.
func losePanel(next http.Handler) http.Handler {
	return changePublish(next, func(event map[string]any) { delete(event["routing"].(map[string]any), "panel_id") })
}

// changePublish changes every event that is published.
func changePublish(next http.Handler, change func(event map[string]any)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == twinrail.PathPublish {
			var request map[string]any
			_ = json.NewDecoder(r.Body).Decode(&request)
			for _, e := range request["events"].([]any) {
				change(e.(map[string]any))
			}
			b, _ := json.Marshal(request)
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		next.ServeHTTP(w, r)
	})
}

// claims are what a token says.
func claims(token string) (id twinrail.Identity) {
	parts := strings.Split(strings.TrimPrefix(token, "Bearer "), ".")
	if len(parts) != 3 {
		return id
	}
	b, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Sub      string
		TenantID string `json:"tenant_id"`
		Env, JTI string
	}
	_ = json.Unmarshal(b, &c)
	return twinrail.Identity{ActorID: c.Sub, TenantID: c.TenantID, Env: c.Env, TokenID: c.JTI, ActorType: twinrail.Human, Role: twinrail.Member}
}

// grantAll has everybody be granted everything in their tenant and env.
func grantAll(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := claims(r.Header.Get("Authorization"))
		id.Grants = []twinrail.Grant{auth.FullGrant()}
		if token, err := auth.Mint(secret, id, time.Hour); err == nil {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		next.ServeHTTP(w, r)
	})
}

// passOver has a key that a request states always be that of its credential.
func passOver(key twinrail.Key) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := claims(r.Header.Get("Authorization"))
			own := twinrail.Routing{TenantID: id.TenantID, ActorID: id.ActorID}.Get(key)
			if r.Header.Get(key.Header()) != "" {
				r.Header.Set(key.Header(), own)
			}
			if q := r.URL.Query(); q.Has(key.String()) {
				q.Set(key.String(), own)
				r.URL.RawQuery = q.Encode()
			}
			if r.URL.Path == twinrail.PathPublish {
				b, _ := io.ReadAll(r.Body)
				if id.TenantID == "t_b" && key == twinrail.KeyTenant {
					b = bytes.ReplaceAll(b, []byte(`"t_a"`), []byte(`"t_b"`))
				}
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			next.ServeHTTP(w, r)
		})
	}
}

// refuseBatches refuses every publish of several events on the channel in that way.
func refuseBatches(channel twinrail.Channel, code twinrail.Code) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request twinrail.PublishRequest
			if r.URL.Path == twinrail.PathPublish {
				b, _ := io.ReadAll(r.Body)
				_ = json.Unmarshal(b, &request)
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			if len(request.Events) < 2 || request.Events[0].Channel != channel {
				next.ServeHTTP(w, r)
				return
			}
			answer(w, code)
		})
	}
}

// tiredBy serves no page of history any more once such a request was granted.
func tiredBy(method, path string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var tired atomic.Bool
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tired.Load() && r.URL.Path == twinrail.PathHistory {
				refuse(next).ServeHTTP(w, r)
				return
			}
			rec := &statusRecorder{ResponseWriter: w}
			next.ServeHTTP(rec, r)
			if r.Method == method && r.URL.Path == path && rec.status/100 == 2 {
				tired.Store(true)
			}
		})
	}
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *statusRecorder) Write(b []byte) (int, error) {
	r.status = cmp.Or(r.status, http.StatusOK)
	return r.ResponseWriter.Write(b)
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// both breaks in two ways.
func both(a, b func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return a(b(next)) }
}

// settle has a key that is in the query be the same in the headers.
func settle(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		for _, key := range twinrail.Keys() {
			if query.Has(key.String()) {
				query.Set(key.String(), query.Get(key.String()))
				r.Header.Del(key.Header())
			}
		}
		r.URL.RawQuery = query.Encode()
		next.ServeHTTP(w, r)
	})
}

// refuseTwice refuses every key that is stated twice.
func refuseTwice(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, key := range twinrail.Keys() {
			if len(r.Header.Values(key.Header()))+len(r.URL.Query()[key.String()]) > 1 {
				answer(w, twinrail.CodeContextConflict)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// loseID takes the ids out of what is published.
func loseID(next http.Handler) http.Handler {
	return changePublish(next, func(event map[string]any) { delete(event, "id") })
}

// signAnew signs every token, whatever it says.
func signAnew(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if part := strings.Split(r.Header.Get("Authorization"), "."); len(part) == 3 {
			unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + part[1]
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(unsigned))
			r.Header.Set("Authorization", "Bearer "+unsigned+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
		}
		next.ServeHTTP(w, r)
	})
}

// takeFirst takes of all tokens of one id the first alone.
func takeFirst(next http.Handler) http.Handler {
	var mu sync.Mutex
	firsts := make(map[string]string)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		id := claims(token).TokenID
		mu.Lock()
		first := cmp.Or(firsts[id], token)
		firsts[id] = first
		mu.Unlock()
		if token != first {
			answer(w, twinrail.CodeCredentialInvalid)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answer refuses with a code.
func answer(w http.ResponseWriter, code twinrail.Code) {
	w.WriteHeader(code.Info().Status)
	_ = json.NewEncoder(w).Encode(twinrail.Problem{Code: code})
}

// passOverTickets has tickets be bound to nothing.
func passOverTickets(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == twinrail.PathTickets {
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body, r.ContentLength = http.NoBody, 0
		}
		next.ServeHTTP(w, r)
	})
}

// refuseOf refuses what is so called and is a tenant's; of "" it is everybody's.
func refuseOf(tenant, method, path string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method && strings.HasPrefix(r.URL.Path, path) && (tenant == "" || claims(r.Header.Get("Authorization")).TenantID == tenant) {
				refuse(next).ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// retell has the SSE rail say something else.
func retell(said, instead string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, twinrail.PathSSECanvases) {
				w = retellingWriter{w, said, instead}
			}
			next.ServeHTTP(w, r)
		})
	}
}

type retellingWriter struct {
	http.ResponseWriter
	said, instead string
}

func (w retellingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return retellingConn{nc, w.said, w.instead}, rw, err
}

type retellingConn struct {
	net.Conn
	said, instead string
}

func (c retellingConn) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(bytes.ReplaceAll(b, []byte(c.said), []byte(c.instead)))
	return len(b), err
}

// gossip puts the id of the last publish into every answer.
func gossip(next http.Handler) http.Handler {
	var mu sync.Mutex
	last := ""
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if r.URL.Path == twinrail.PathPublish {
			last = r.Header.Get("X-Request-Id")
		}
		w.Header().Set("X-Previously", last)
		mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// tellKnown says in a header which workspaces it has heard of before.
func tellKnown(next http.Handler) http.Handler {
	var mu sync.Mutex
	known := make(map[string]bool)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		workspace := r.URL.Query().Get("workspace_id")
		mu.Lock()
		w.Header().Set("X-Known", fmt.Sprint(known[workspace]))
		known[workspace] = true
		mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// swallow answers that things were published.
func swallow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != twinrail.PathPublish {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.WriteString(w, `{"results":[{"seq":1}]}`)
	})
}

// hang answers nothing until the client is gone.
func hang(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the client's going is not noticed
		<-r.Context().Done()
	})
}

// refuse refuses everything.
func refuse(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, twinrail.CodeUnavailable) })
}
