package auth

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// verify verifies a token of u_1 in t_acme and dev for an hour, with claims.
func verify(t *testing.T, g *Gate, claims jwt.MapClaims) (*Principal, error) {
	t.Helper()
	c := jwt.MapClaims{"sub": "u_1", "tenant_id": "t_acme", "env": "dev", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(c, claims)
	return g.Verify(t.Context(), signHS(t, c))
}

// verifies fails unless verify has the code.
func verifies(t *testing.T, g *Gate, code twinrail.Code, claims jwt.MapClaims) {
	t.Helper()
	_, err := verify(t, g, claims)
	wantError(t, err, code, "")
}

func TestRevoke(t *testing.T) {
	const revoked = twinrail.CodeCredentialRevoked
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second / 2) // within a second, as usual
		at := func(d time.Duration) float64 { return float64(time.Now().Add(d).UnixMilli()) / 1000 }
		type claims = jwt.MapClaims
		for name, tt := range map[string]struct {
			what   twinrail.RevocationRequest
			void   []claims
			intact []claims
		}{
			"a token": {
				twinrail.RevocationRequest{TokenID: "j1"},
				[]claims{{"jti": "j1"}, {"jti": "j1", "iat": at(-time.Minute)}, {"jti": "j1", "iat": at(time.Minute)}, {"jti": "j1", "sub": "u_2"}},
				[]claims{{}, {"jti": "j2"}, {"jti": "j1", "tenant_id": "t_other"}, {"jti": "j1", "env": "prod"}, {"jti": "j2", "sub": "j1"}},
			},
			"an actor": {
				twinrail.RevocationRequest{ActorID: "u_1"},
				[]claims{{}, {"iat": at(-time.Hour)}, {"iat": at(0)}, {"iat": at(time.Second / 4)}, {"jti": "j1", "iat": at(0)}},
				[]claims{{"iat": at(time.Second / 2)}, {"iat": at(time.Minute)}, {"sub": "u_2"}, {"tenant_id": "t_other"}, {"env": "prod"}, {"sub": "u_2", "jti": "u_1"}},
			},
			"the tenant": {
				twinrail.RevocationRequest{Tenant: true},
				[]claims{{}, {"iat": at(0)}, {"sub": "u_2"}, {"sub": "u_2", "jti": "j1", "iat": at(-time.Hour)}},
				[]claims{{"iat": at(time.Second / 2)}, {"sub": "u_2", "iat": at(time.Second / 2)}, {"tenant_id": "t_other"}, {"env": "prod"}},
			},
		} {
			t.Log(name)
			var kept tables
			g := kept.gate(t)
			told := 0
			g.OnRevoke(func(tenant, env, actor string) {
				told++
				if tenant != "t_acme" || env != "dev" || actor != tt.what.ActorID {
					t.Errorf("told of %q, %q, %q", tenant, env, actor)
				}
			})
			c := withBearer(t, g, actorIs("boss"))
			before := make([]*Principal, 0, len(tt.void))
			for _, claims := range tt.void {
				p, err := verify(t, g, claims)
				if err != nil {
					t.Fatal(err)
				}
				before = append(before, p)
			}
			got, err := g.Revoke(c, tt.what)
			if err != nil || !got.RevokedAt.Equal(time.Now()) || !got.ForgottenAt.Equal(time.Now().Add(90*24*time.Hour)) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if told != 1 || kept.revocations.unsynced() != 0 || len(kept.revocations.rows()) != 1 {
				t.Errorf("told %d times, stored %q", told, kept.revocations.rows())
			}
			for i, p := range before {
				if !g.Revoked(p) {
					t.Errorf("what was opened with %v is not revoked", tt.void[i])
				}
			}
			time.Sleep(time.Nanosecond) // of an iat ahead, when it comes counts
			for _, g := range []*Gate{g, kept.gate(t)} {
				for _, claims := range tt.void {
					verifies(t, g, revoked, claims)
				}
				for _, claims := range tt.intact {
					verifies(t, g, "", claims)
				}
			}
		}
	})
}

// TestRevokeAhead: an issuer's clock may be ahead of ours. What was opened with a
// token of it before a revocation is void after it, on a server that was started
// in between too, and so is the token itself; one that is issued later is not.
func TestRevokeAhead(t *testing.T) {
	for name, what := range map[string]twinrail.RevocationRequest{"actor": {ActorID: "u_1"}, "tenant": {Tenant: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var kept tables
				g := kept.gate(t)
				ahead := jwt.MapClaims{"iat": time.Now().Add(time.Minute).Unix(), "grants": []any{FullGrant()}}
				p, err := verify(t, g, ahead)
				if err != nil {
					t.Fatal(err)
				}
				c, err := p.Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "req-1", "")
				if err != nil {
					t.Fatal(err)
				}
				cookie, resume := cookieFor(t, g, c), g.SealResume(c, Resume{SessionID: "s1"})
				time.Sleep(time.Second)
				restarted := kept.gate(t)
				for i, g := range []*Gate{restarted, g} { // each with no more than it knows by itself
					if _, err := g.Revoke(withBearer(t, g, actorIs("boss")), what); err != nil {
						t.Fatal(err)
					}
					if !g.Revoked(p) {
						t.Errorf("gate %d: what was opened with it is not revoked", i)
					}
					_, err := withCookie(g, cookie)
					wantError(t, err, twinrail.CodeCredentialRevoked, "")
				}
				for _, after := range []time.Duration{0, 59 * time.Second, time.Hour / 2} {
					time.Sleep(after)
					verifies(t, g, twinrail.CodeCredentialRevoked, ahead)
				}
				newer := withBearer(t, g)
				_, err = g.OpenResume(newer, resume)
				wantError(t, err, twinrail.CodeCredentialRevoked, "")
			})
		})
	}
}

// TestRevokeInTheSecond of its iat: that the clock is just at it changes nothing.
func TestRevokeInTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		c := withBearer(t, g)
		got, err := g.Revoke(c, twinrail.RevocationRequest{ActorID: "u_1"})
		if err != nil || !got.RevokedAt.Equal(c.Principal().Identity().IssuedAt) {
			t.Fatalf("%+v, %v", got, err)
		}
		if !g.Revoked(c.Principal()) {
			t.Error("not revoked")
		}
	})
}

func TestRevokeRefuses(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	told := 0
	g.OnRevoke(func(_, _, _ string) { told++ })
	c := withBearer(t, g)
	for _, tt := range []struct {
		what  twinrail.RevocationRequest
		field string
	}{
		{twinrail.RevocationRequest{}, "jti"},
		{twinrail.RevocationRequest{TokenID: "j", ActorID: "u_2"}, "actor_id"},
		{twinrail.RevocationRequest{TokenID: "j", Tenant: true}, "tenant"},
		{twinrail.RevocationRequest{ActorID: "u_2", Tenant: true}, "tenant"},
		{twinrail.RevocationRequest{TokenID: "j", ActorID: "u_2", Tenant: true}, "actor_id"},
		{twinrail.RevocationRequest{TokenID: strings.Repeat("j", 257)}, "jti"},
		{twinrail.RevocationRequest{ActorID: "a b"}, "actor_id"},
	} {
		_, err := g.Revoke(c, tt.what)
		wantError(t, err, twinrail.CodeBadRequest, tt.field)
	}
	// Who may not revoke is told nothing of the request.
	_, err := g.Revoke(withBearer(t, g, grants()), twinrail.RevocationRequest{})
	wantError(t, err, twinrail.CodeNotFound, "")

	kept.revocations.fail(errDisk)
	_, err = g.Revoke(c, twinrail.RevocationRequest{ActorID: "u_1"})
	wantError(t, err, twinrail.CodeUnavailable, "")
	if strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("the client is told %v", err)
	}
	if g.Revoked(c.Principal()) || told != 0 {
		t.Error("something was revoked")
	}
	kept.revocations.fail(nil)
	if _, err := g.Revoke(c, twinrail.RevocationRequest{TokenID: strings.Repeat("/", 256)}); err != nil {
		t.Errorf("the longest jti: %v", err)
	}
}

// TestRevocationReachesEverything that was got with a token.
func TestRevocationReachesEverything(t *testing.T) {
	for name, what := range map[string]twinrail.RevocationRequest{
		"jti": {TokenID: "j1"}, "actor": {ActorID: "u_1"}, "tenant": {Tenant: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var kept tables
				g := kept.gate(t)
				c := withBearer(t, g, tokenIs("j1"))
				ticket, cookie := ticketFor(t, g, c, twinrail.TicketRequest{}), cookieFor(t, g, c)
				byTicket, err := withTicket(g, ticketFor(t, g, c, twinrail.TicketRequest{}))
				if err != nil {
					t.Fatal(err)
				}
				byCookie, err := withCookie(g, cookie)
				if err != nil {
					t.Fatal(err)
				}
				resume := g.SealResume(c, Resume{SessionID: "s1"})
				time.Sleep(time.Second)
				if _, err := g.Revoke(c, what); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				newer := withBearer(t, g)
				for _, c := range []*Context{c, byTicket, byCookie} {
					if !g.Revoked(c.Principal()) {
						t.Errorf("carriage %d: not revoked", c.principal.carriage)
					}
				}
				if g.Revoked(newer.Principal()) {
					t.Error("a newer token is revoked")
				}
				_, err = withTicket(g, ticket)
				wantError(t, err, twinrail.CodeCredentialRevoked, "")
				for _, g := range []*Gate{g, kept.gate(t)} {
					_, err = withCookie(g, cookie)
					wantError(t, err, twinrail.CodeCredentialRevoked, "")
					_, err = g.OpenResume(newer, resume)
					wantError(t, err, twinrail.CodeCredentialRevoked, "")
				}
				_, err = g.OpenResume(newer, g.SealResume(newer, Resume{SessionID: "s1"}))
				wantError(t, err, "", "")
			})
		})
	}
}

func TestRevocationIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = 24 * time.Hour
		var kept tables
		open := func() *Gate {
			return newGate(t, GateOptions{Revocations: &kept.revocations, MaxTokenAge: age})
		}
		g := open()
		boss := func() *Context { return withBearer(t, g, actorIs("boss")) }
		if _, err := g.Revoke(boss(), twinrail.RevocationRequest{TokenID: "j1"}); err != nil {
			t.Fatal(err)
		}
		for _, what := range []twinrail.RevocationRequest{{TokenID: "j1"}, {ActorID: "u_1"}, {Tenant: true}} {
			got, err := g.Revoke(boss(), what)
			if err != nil || !got.ForgottenAt.Equal(got.RevokedAt.Add(age)) {
				t.Fatalf("%+v, %v", got, err)
			}
			time.Sleep(time.Second)
		}
		// A later one replaces an earlier one, and counts as one with it.
		if _, err := g.Revoke(boss(), twinrail.RevocationRequest{ActorID: "u_1"}); err != nil {
			t.Fatal(err)
		}
		if n := len(kept.revocations.rows()); n != 3 {
			t.Errorf("%d are stored", n)
		}
		time.Sleep(age + maxClockSkew - 3*time.Second - time.Nanosecond)
		verifies(t, g, twinrail.CodeCredentialRevoked, jwt.MapClaims{"jti": "j1", "sub": "u_2", "iat": time.Now().Add(-time.Minute).Unix()})
		time.Sleep(time.Nanosecond)
		verifies(t, g, "", jwt.MapClaims{"jti": "j1", "sub": "u_2", "iat": time.Now().Add(-time.Minute).Unix()})
		verifies(t, g, twinrail.CodeCredentialRevoked, nil) // the tenant and the actor
		time.Sleep(2 * time.Second)
		verifies(t, g, "", jwt.MapClaims{"sub": "u_2"})
		verifies(t, g, twinrail.CodeCredentialRevoked, nil) // the actor
		if restarted := open(); len(restarted.revocations.at) != 1 || len(kept.revocations.rows()) != 1 {
			t.Errorf("held %v, stored %q", restarted.revocations.at, kept.revocations.rows())
		}
		time.Sleep(time.Second)
		verifies(t, g, "", nil)
		if _, err := g.Revoke(boss(), twinrail.RevocationRequest{ActorID: "u_7"}); err != nil {
			t.Fatal(err)
		}
		r := g.revocations
		if rows := kept.revocations.rows(); len(r.at) != 1 || len(r.count) != 1 || len(r.ends.queue.items) != 1 || len(rows) != 1 {
			t.Errorf("held %v, counted %v, stored %q", r.at, r.count, rows)
		}
	})
}

// TestRevocationIsNotTakenBack by a clock that goes back, nor by an older row.
func TestRevocationIsNotTakenBack(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	s := subject{"t_acme", "dev", subjectActor, "u_1"}
	later, err := g.revocations.add(s, c, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := g.revocations.add(s, c, time.Now()); err != nil || !at.Equal(later) {
		t.Errorf("at %v, %v", at, err)
	}
}

func TestRevokedTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		c := withBearer(t, g)
		other := withBearer(t, g, envIs("prod"))
		for i := range maxRevoked {
			if _, err := g.revocations.add(subject{"t_acme", "dev", subjectToken, fmt.Sprint(i)}, c, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		_, err := g.Revoke(c, twinrail.RevocationRequest{TokenID: "more"})
		wantError(t, err, twinrail.CodeLimitExceeded, "jti")
		for _, ok := range []struct {
			c    *Context
			what twinrail.RevocationRequest
		}{
			{c, twinrail.RevocationRequest{TokenID: "7"}}, // again
			{c, twinrail.RevocationRequest{ActorID: "u_2"}},
			{c, twinrail.RevocationRequest{Tenant: true}},
			{other, twinrail.RevocationRequest{TokenID: "more"}},
		} {
			if _, err := g.Revoke(ok.c, ok.what); err != nil {
				t.Errorf("%+v: %v", ok.what, err)
			}
		}
		time.Sleep(90*24*time.Hour + maxClockSkew)
		if _, err := g.Revoke(withBearer(t, g), twinrail.RevocationRequest{TokenID: "more"}); err != nil {
			t.Errorf("once others are forgotten: %v", err)
		}
	})
}

// TestRevokedActorsAreBounded: a request can name any actor, whether there is one
// or not.
func TestRevokedActorsAreBounded(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	for i := range maxRevoked {
		if _, err := g.revocations.add(subject{"t_acme", "dev", subjectActor, fmt.Sprint(i)}, c, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := g.Revoke(c, twinrail.RevocationRequest{ActorID: "more"})
	wantError(t, err, twinrail.CodeLimitExceeded, "actor_id")
	if !strings.Contains(err.Error(), "the tenant instead") {
		t.Errorf("it is not said what to do: %v", err)
	}
	for _, ok := range []struct {
		c    *Context
		what twinrail.RevocationRequest
	}{
		{c, twinrail.RevocationRequest{ActorID: "7"}}, // again
		{c, twinrail.RevocationRequest{TokenID: "j1"}},
		{withBearer(t, g, envIs("prod")), twinrail.RevocationRequest{ActorID: "more"}},
		{c, twinrail.RevocationRequest{Tenant: true}},
	} {
		if _, err := g.Revoke(ok.c, ok.what); err != nil {
			t.Errorf("%+v: %v", ok.what, err)
		}
	}
}

func TestRevocationIsLogged(t *testing.T) {
	var out bytes.Buffer
	g := newGate(t, GateOptions{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if _, err := g.Revoke(withBearer(t, g, actorIs("boss")), twinrail.RevocationRequest{TokenID: "j1"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=INFO", "kind=jti", "tenant=t_acme", "env=dev", "by=boss", "request_id=req-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
}

// TestRevokeAtOnce: a token that was verified while it was being revoked is
// revoked afterwards, and the hook can ask.
func TestRevokeAtOnce(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	p := withBearer(t, g, tokenIs("j0")).Principal()
	g.OnRevoke(func(_, _, _ string) {
		if !g.Revoked(p) { // outside of locks, or this hangs
			t.Error("told before it took effect")
		}
	})
	c := withBearer(t, g, actorIs("boss"))
	if _, err := g.Revoke(c, twinrail.RevocationRequest{TokenID: "j0"}); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for j := range 20 {
				id := fmt.Sprintf("j%d-%d", i, j)
				if _, err := g.Revoke(c, twinrail.RevocationRequest{TokenID: id}); err != nil {
					t.Error(err)
				}
				if _, err := g.Verify(t.Context(), token(t, tokenIs(id))); twinrail.CodeOf(err) != twinrail.CodeCredentialRevoked {
					t.Errorf("verified: %v", err)
				}
			}
		})
	}
	group.Wait()
	if n := len(kept.revocations.rows()); n != 81 {
		t.Errorf("%d are stored", n)
	}
}

func TestSubjectKeys(t *testing.T) {
	any := rapid.StringN(1, maxTokenID, maxTokenID)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) subject {
			s := subject{
				tenant: rapid.StringMatching(`t_[a-z0-9_-]{1,62}`).Draw(t, name+" tenant"),
				env:    rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_-]{0,63}`).Draw(t, name+" env"),
				kind:   rapid.SampledFrom([]string{subjectToken, subjectActor, subjectTenant}).Draw(t, name+" kind"),
			}
			if s.kind != subjectTenant {
				s.id = rapid.OneOf(any, rapid.SampledFrom([]string{"a/b", "a%2Fb", "a", "a/", ".", "\xff"})).Draw(t, name+" id")
			}
			return s
		}
		a, b := draw("a"), draw("b")
		if got, err := parseSubject(a.key()); err != nil || got != a {
			t.Fatalf("%q is read as %+v, %v", a.key(), got, err)
		}
		if (a == b) != (a.key() == b.key()) {
			t.Fatalf("%+v and %+v: %q and %q", a, b, a.key(), b.key())
		}
		if err := table.Check(a.key(), nil); err != nil {
			t.Fatalf("%d bytes: %v", len(a.key()), err)
		}
	})
}

func TestRevokedDoesNotAllocate(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g, tokenIs("j1"))
	if _, err := g.Revoke(c, twinrail.RevocationRequest{ActorID: "u_9"}); err != nil {
		t.Fatal(err)
	}
	p := c.Principal()
	if n := testing.AllocsPerRun(100, func() { g.Revoked(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
