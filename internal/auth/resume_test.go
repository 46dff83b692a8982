package auth

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

var drawResume = rapid.Custom(func(t *rapid.T) Resume {
	value := func(k twinrail.Key) string {
		s := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b"}), rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_-]{0,63}`))
		return s.Draw(t, k.String())
	}
	r := Resume{SessionID: rapid.StringN(0, 40, 64).Draw(t, "session"), Uses: rapid.Uint64().Draw(t, "uses")}
	for range rapid.IntRange(0, 20).Draw(t, "subs") {
		sub := ResumeSub{
			Name:     rapid.StringMatching(`[A-Za-z0-9._:-]{1,64}`).Draw(t, "name"),
			Kind:     rapid.SampledFrom([]twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream}).Draw(t, "kind"),
			Channels: twinrail.ChannelSet(rapid.Uint8Range(0, 63).Draw(t, "channels")),
			Present:  rapid.Bool().Draw(t, "present"),
		}
		for _, k := range resumeKeys() {
			sub.Routing.Set(k, value(k))
		}
		r.Subs = append(r.Subs, sub)
	}
	return r
})

func TestResumeRoundTrip(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	rapid.Check(t, func(t *rapid.T) {
		r := drawResume.Draw(t, "r")
		token := g.SealResume(c, r)
		if !wellFormed(token) || !strings.HasPrefix(token, "r1.") {
			t.Fatalf("the token is %q", token)
		}
		got, err := g.OpenResume(c, token)
		if err != nil || !reflect.DeepEqual(got.said, r) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, r)
		}

		// With any one character changed, added or left out it is none.
		i := rapid.IntRange(0, len(token)-1).Draw(t, "i")
		with := rapid.SampledFrom([]string{"", "A", "-", "_", "=", ".", "\n", " ", token[i:i+1] + "A"}).Draw(t, "with")
		if changed := token[:i] + with + token[i+1:]; changed != token {
			if _, err := g.OpenResume(c, changed); twinrail.CodeOf(err) != twinrail.CodeResumeInvalid {
				t.Fatalf("with %q at %d: %v", with, i, err)
			}
		}
	})
}

func TestResumeIsBound(t *testing.T) {
	g := newGate(t, GateOptions{Key: secret})
	token := g.SealResume(withBearer(t, g, tokenIs("j1")), Resume{SessionID: "s1", Uses: 3})
	again := newGate(t, GateOptions{Key: secret})
	got, err := again.OpenResume(withBearer(t, again, tokenIs("j2")), token) // another credential of the same
	if err != nil || got.SessionID() != "s1" || got.Uses() != 3 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	forged := g.SealResume(withBearer(t, g), Resume{})
	forged = forged[:len(forged)-1] + map[bool]string{true: "B", false: "A"}[strings.HasSuffix(forged, "A")]
	_, want := g.OpenResume(withBearer(t, g), forged)
	wantError(t, want, twinrail.CodeResumeInvalid, "")
	for name, change := range map[string]func(*twinrail.Identity){
		"tenant": tenantIs("t_other"), "env": envIs("prod"), "actor": actorIs("u_2"),
	} {
		_, err := g.OpenResume(withBearer(t, g, change), token)
		if fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("another %s: %v, and a forged one: %v", name, err, want)
		}
	}
	other := newGate(t, GateOptions{})
	_, err = other.OpenResume(withBearer(t, other), token)
	wantError(t, err, twinrail.CodeResumeInvalid, "") // each has its own key by default
}

// TestResumeIsOfItsCredential: it is void with the credential that it was made
// for, not with the one that it is used with.
func TestResumeIsOfItsCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		boss := withBearer(t, g, actorIs("boss"))
		c := withBearer(t, g, tokenIs("j1"))
		p, err := g.Verify(t.Context(), signHS(t, jwt.MapClaims{"sub": "u_1", "tenant_id": "t_acme", "env": "dev", "exp": time.Now().Add(time.Hour).Unix()}))
		if err != nil {
			t.Fatal(err)
		}
		undated, err := p.Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "", "")
		if err != nil {
			t.Fatal(err)
		}
		byToken, byUndated := g.SealResume(c, Resume{}), g.SealResume(undated, Resume{})
		time.Sleep(time.Second)
		newer := withBearer(t, g, tokenIs("j2"))
		if _, err := g.Revoke(boss, twinrail.RevocationRequest{TokenID: "j2"}); err != nil {
			t.Fatal(err)
		}
		_, err = g.OpenResume(newer, byToken)
		wantError(t, err, "", "")
		if _, err := g.Revoke(boss, twinrail.RevocationRequest{TokenID: "j1"}); err != nil {
			t.Fatal(err)
		}
		_, err = g.OpenResume(newer, byToken)
		wantError(t, err, twinrail.CodeCredentialRevoked, "")
		_, err = g.OpenResume(newer, byUndated)
		wantError(t, err, "", "")
		if _, err := g.Revoke(boss, twinrail.RevocationRequest{ActorID: "u_1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_, err = g.OpenResume(newer, byUndated)
		wantError(t, err, twinrail.CodeCredentialRevoked, "")
		later := withBearer(t, g)
		_, err = g.OpenResume(newer, g.SealResume(later, Resume{}))
		wantError(t, err, "", "")
	})
}

func TestResumeSize(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	subs := func(n int, each func(i int, r *twinrail.Routing)) (r Resume) {
		r.SessionID = strings.Repeat("s", 36)
		for i := range n {
			sub := ResumeSub{Name: fmt.Sprintf("thread-%d", i), Kind: twinrail.ThreadStream, Channels: twinrail.ChannelsOf(twinrail.Chat, twinrail.Presence)}
			sub.Routing = twinrail.Routing{
				TenantID: "t_acme", Env: "dev", WorkspaceID: strings.Repeat("w", 36), ProjectID: strings.Repeat("p", 36), AppID: "studio",
			}
			each(i, &sub.Routing)
			r.Subs = append(r.Subs, sub)
		}
		return r
	}
	usual := g.SealResume(c, subs(128, func(i int, r *twinrail.Routing) { r.ThreadID = fmt.Sprintf("th_%d", i) }))
	if len(usual) == 0 || len(usual) > 4<<10 {
		t.Errorf("128 threads of one home take %d bytes", len(usual))
	}

	long := func(i int, r *twinrail.Routing) {
		for _, k := range resumeKeys()[twinrail.KeyWorkspace:] {
			r.Set(k, fmt.Sprintf("%064d", i))
		}
	}
	n := 0
	for ; g.SealResume(c, subs(n+1, long)) != ""; n++ {
	}
	largest := g.SealResume(c, subs(n, long))
	if len(largest) > MaxResumeToken || len(largest) < MaxResumeToken-1000 {
		t.Errorf("the largest has %d bytes", len(largest))
	}
	if r, err := g.OpenResume(c, largest); err != nil || len(r.Subs()) != n {
		t.Errorf("the largest: %d of %d, %v", len(r.Subs()), n, err)
	}
	// A longer one is refused, also if it is signed.
	id := c.Principal().Identity()
	body := "r1." + base64.RawURLEncoding.EncodeToString(appendResume(nil, resumeBody{
		tenant: id.TenantID, env: id.Env, actor: id.ActorID, Resume: subs(n+1, long),
	}))
	_, err := g.OpenResume(c, body+"."+g.signResume(body))
	wantError(t, err, twinrail.CodeResumeInvalid, "")
}

// FuzzOpenResume: nothing that was not sealed opens, and no body that is signed
// does harm.
func FuzzOpenResume(f *testing.F) {
	// Each process of the fuzzer seals the same.
	g := newGate(f, GateOptions{Key: secret})
	id := someone()
	id.TokenID = "j1"
	c, err := (&Principal{identity: id}).Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "", "")
	if err != nil {
		f.Fatal(err)
	}
	sealed := make(map[string]bool)
	for i := range 4 {
		token := g.SealResume(c, drawResume.Example(i))
		sealed[token] = true
		f.Add(token)
		body, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body))
	}
	for _, s := range []string{"", "r1.", "r1..", "r1.AA.", "r2.AA.AA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := g.OpenResume(c, s); (err == nil) != sealed[s] {
			t.Errorf("it opens: %v", err)
		}
		body, err := parseResume([]byte(s))
		if err != nil {
			return
		}
		again, err := parseResume(appendResume(nil, body))
		if err != nil || !reflect.DeepEqual(again, body) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, again, body)
		}
		signed := "r1." + base64.RawURLEncoding.EncodeToString([]byte(s))
		_, err = g.OpenResume(c, signed+"."+g.signResume(signed))
		mine := body.tenant == "t_acme" && body.env == "dev" && body.actor == "u_1"
		if (err == nil) != mine {
			t.Errorf("of %s in %s and %s: %v", body.actor, body.tenant, body.env, err)
		}
	})
}

func TestParseResumeRefuses(t *testing.T) {
	whole := appendResume(nil, resumeBody{tenant: "t", env: "e", actor: "a", Resume: Resume{SessionID: "s", Subs: []ResumeSub{
		{Name: "n", Kind: twinrail.ThreadStream, Routing: twinrail.Routing{TenantID: "t", ThreadID: "x"}, Channels: 3},
	}}})
	for i := range whole {
		if r, err := parseResume(whole[:i]); err == nil {
			t.Errorf("the first %d of %d bytes are %+v", i, len(whole), r)
		}
	}
	if r, err := parseResume(append(whole, 0)); err == nil {
		t.Errorf("with a byte more it is %+v", r)
	}
	if _, err := parseResume(whole); err != nil {
		t.Error(err)
	}
}
