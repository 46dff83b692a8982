package auth

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

func TestSessionThatCannotBeStored(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	kept.cookies.fail(errDisk)
	cookie, err := g.OpenSession(withBearer(t, g), request("/"))
	wantError(t, err, twinrail.CodeUnavailable, "")
	if cookie != nil || len(g.logins.byCookie) != 0 || len(g.logins.byActor) != 0 || len(g.logins.ends.queue.items) != 0 {
		t.Error("there is a session")
	}
	if strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("the client is told %v", err)
	}
}

func TestStoredSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A session that is longer than tokens are good for by now ends with them.
		var kept tables
		g := kept.gate(t)
		dated := cookieFor(t, g, withBearer(t, g, lives(48*time.Hour)))
		p, err := g.Verify(t.Context(), signHS(t, jwt.MapClaims{"sub": "u_2", "tenant_id": "t_acme", "env": "dev", "exp": time.Now().Add(48 * time.Hour).Unix()}))
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "", "")
		if err != nil {
			t.Fatal(err)
		}
		undated := cookieFor(t, g, c)
		g = newGate(t, GateOptions{Cookies: &kept.cookies, MaxTokenAge: 24 * time.Hour})
		time.Sleep(24*time.Hour - time.Nanosecond)
		for _, cookie := range []*http.Cookie{dated, undated} {
			_, err = withCookie(g, cookie)
			wantError(t, err, "", "")
		}
		time.Sleep(time.Nanosecond)
		for _, cookie := range []*http.Cookie{dated, undated} {
			_, err = withCookie(g, cookie)
			wantError(t, err, expired, "")
		}

		// One of an env that there is no more is dropped.
		g = kept.gate(t)
		cookie := cookieFor(t, g, withBearer(t, g))
		v := newVerifier(t, VerifierOptions{Keys: []Key{{Material: secret}}, Envs: []string{"prod"}})
		g = newGate(t, GateOptions{Verifier: v, Cookies: &kept.cookies})
		if len(g.logins.byCookie) != 0 || len(kept.cookies.rows()) != 0 {
			t.Errorf("held %d, stored %d", len(g.logins.byCookie), len(kept.cookies.rows()))
		}
		_, err = withCookie(g, cookie)
		wantError(t, err, refused, "")
	})
}

func TestDamagedSession(t *testing.T) {
	key := strings.Repeat("0f", 32)
	const value = `{"actor_id":"u_1","actor_type":"human","tenant_id":"t_acme","env":"dev","role":"member","grants":[],"opened_at":"2026-01-01T00:00:00Z","expires_at":"2100-01-01T00:00:00Z"}`
	for name, tt := range map[string]struct {
		key, value string
		ok         bool
	}{
		"none":             {key, value, true},
		"a short key":      {key[2:], value, false},
		"a long key":       {key + "00", value, false},
		"an odd key":       {key[1:], value, false},
		"a key in capital": {strings.ToUpper(key), value, false},
		"no value":         {key, "", false},
		"an unknown name":  {key, `{"x":1,` + value[1:], false},
		"no actor":         {key, strings.Replace(value, "u_1", "", 1), false},
		"a bad role":       {key, strings.Replace(value, "member", "king", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			rows := new(table.Memory)
			if err := rows.Put(tt.key, []byte(tt.value), table.Synced); err != nil {
				t.Fatal(err)
			}
			if _, err := NewGate(GateOptions{Verifier: secretVerifier(t), Cookies: rows}); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSessionsAtOnce opens, uses and ends sessions of one actor at once.
func TestSessionsAtOnce(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	var told atomic.Int32
	g.OnRevoke(func(_, _, _ string) { told.Add(1) })
	bearer := withBearer(t, g)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 20 {
				cookie, err := g.OpenSession(bearer, request("/"))
				if err != nil {
					t.Error(err)
					return
				}
				c, err := withCookie(g, cookie)
				if err != nil {
					continue // the others have opened 32 since
				}
				if i%2 == 0 {
					if _, err := g.EndSession(bearer, cookieRequest(cookie)); err != nil || !g.Revoked(c.Principal()) {
						t.Errorf("not ended: %v", err)
					}
				}
			}
		})
	}
	group.Wait()
	if n, rows := len(g.logins.byCookie), len(kept.cookies.rows()); n < 1 || n > maxLogins || rows != n {
		t.Errorf("%d sessions are held, %d stored", n, rows)
	}
	if told.Load() == 0 {
		t.Error("nobody was told")
	}
}
