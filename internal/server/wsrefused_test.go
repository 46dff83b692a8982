package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// lost is a session that waits to be resumed.
type lost struct {
	*rig
	token   string
	cursors map[string]string
}

// lose opens a session with subs a and c for u_1 with a credential j_1, and cuts
// it.
func (r *rig) lose() *lost {
	r.t.Helper()
	at := r.publish(on("th1", "", 0))[0].Cursor
	p, _ := r.greet(r.issuer.Token(tokenID("j_1")))
	token := p.subscribe(subA+`,"presence":1`, subC).ResumeToken
	p.cut()
	return &lost{r, token, map[string]string{"a": at}}
}

// tokenID sets the jti.
func tokenID(jti string) authtest.Option { return func(id *twinrail.Identity) { id.TokenID = jti } }

// revoke revokes as somebody who may.
func (r *rig) revoke(body string) {
	r.t.Helper()
	resp := r.do("POST", twinrail.PathRevocations+"?tenant_id=t_acme&env=dev", body, as(r.issuer.Token(authtest.Actor("root"))))
	if resp.status != http.StatusOK {
		r.t.Fatalf("revoke: %d %s", resp.status, resp.body)
	}
}

// twist changes one character of a token.
func twist(token string, i int) string {
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// TestResumeRefused is what does not resume a session. The connection goes on,
// and so does the session, where it was not over anyway.
func TestResumeRefused(t *testing.T) {
	type options = []authtest.Option
	for name, c := range map[string]struct {
		who    options
		path   string
		before func(*lost) // what happens to the session, which is over then
		change func(*lost) // what is wrong with the attempt
		code   twinrail.Code
		field  string
	}{
		"another actor":  {who: options{authtest.Actor("u_2")}, code: twinrail.CodeResumeInvalid},
		"another tenant": {who: options{authtest.Tenant("t_other")}, path: "tenant_id=t_other&env=dev", code: twinrail.CodeResumeInvalid},
		"another env":    {who: options{authtest.Env("prod")}, path: "tenant_id=t_acme&env=prod", code: twinrail.CodeResumeInvalid},
		"another key": {code: twinrail.CodeResumeInvalid, change: func(l *lost) {
			l.token = newBubbleRigOf(l.t, l.issuer).lose().token
		}},
		"a JWT":             {code: twinrail.CodeResumeInvalid, change: func(l *lost) { l.token = l.rig.token }},
		"no signature":      {code: twinrail.CodeResumeInvalid, change: func(l *lost) { l.token = l.token[:strings.LastIndexByte(l.token, '.')+1] }},
		"too long":          {code: twinrail.CodeResumeInvalid, change: func(l *lost) { l.token += strings.Repeat("A", auth.MaxResumeToken) }},
		"no token":          {code: twinrail.CodeResumeInvalid, change: func(l *lost) { l.token = "" }},
		"a cursor missing":  {code: twinrail.CodeBadRequest, field: "cursors.a", change: func(l *lost) { l.cursors = nil }},
		"a cursor is empty": {code: twinrail.CodeBadRequest, field: "cursors.a", change: func(l *lost) { l.cursors = map[string]string{"a": ""} }},
		"a cursor too many": {code: twinrail.CodeBadRequest, field: "cursors", change: func(l *lost) {
			l.cursors = map[string]string{"a": l.cursors["a"], "z": l.cursors["a"]}
		}},
		"used": {code: twinrail.CodeResumeUsed, before: func(l *lost) {
			p, _ := l.greet(l.rig.token)
			p.resumes(l.token, l.cursors)
			p.follow(true, map[string]string{"a": "", "c": ""})
		}},
		"used, and lost again": {code: twinrail.CodeResumeUsed, before: func(l *lost) {
			p, _ := l.greet(l.rig.token)
			p.resumes(l.token, l.cursors)
			p.cut()
		}},
		"after the window": {code: twinrail.CodeResumeExpired, before: func(*lost) { time.Sleep(2*time.Minute + time.Second) }},
		"closed for good": {code: twinrail.CodeResumeExpired, before: func(l *lost) {
			p, _ := l.greet(l.rig.token)
			l.token = p.resumes(l.token, l.cursors).ResumeToken
			p.follow(true, map[string]string{"a": "", "c": ""})
			p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(1000, "")))
			p.closed()
			synctest.Wait()
		}},
		"jti revoked":    {code: twinrail.CodeCredentialRevoked, before: func(l *lost) { l.revoke(`{"jti":"j_1"}`) }},
		"actor revoked":  {code: twinrail.CodeCredentialRevoked, before: func(l *lost) { l.revoke(`{"actor_id":"u_1"}`); time.Sleep(time.Second) }},
		"tenant revoked": {code: twinrail.CodeCredentialRevoked, before: func(l *lost) { l.revoke(`{"tenant":true}`); time.Sleep(time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newBubbleRig(t).lose()
				if c.before != nil {
					c.before(l)
				}
				attempt := *l
				if c.change != nil {
					c.change(&attempt)
				}
				path := wsPath
				if c.path != "" {
					path = strings.Replace(wsPath, "tenant_id=t_acme&env=dev", c.path, 1)
				}
				p := l.upgrade(path, l.issuer.Token(c.who...))
				p.want(twinrail.OpWelcome)
				p.resume(attempt.token, attempt.cursors)
				if f := p.wantError(c.code, "r"); f.Field != c.field || f.Retry != twinrail.RetryNever {
					t.Errorf("refused with %+v, want field %q", f, c.field)
				}
				p.live("z")
				p.silent("after the refusal")
				if n := l.metric(`twinrail_resumes_total{code="` + string(c.code) + `"}`); n != 1 {
					t.Errorf("%v refusals were counted", n)
				}
				if c.before != nil {
					return
				}
				p, _ = l.greet(l.issuer.Token())
				p.resumes(l.token, l.cursors)
			})
		})
	}
}

// TestResumeForged changes each character of a token.
func TestResumeForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBubbleRig(t).lose()
		p, _ := l.greet(l.rig.token)
		for i := range l.token {
			p.resume(twist(l.token, i), l.cursors)
			p.wantError(twinrail.CodeResumeInvalid, "r")
		}
		p.resumes(l.token, l.cursors)
	})
}

// TestResumeTwiceOnOneConnection resumes where something was joined or resumed.
func TestResumeTwiceOnOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBubbleRig(t).lose()
		p, _ := l.greet(l.rig.token)
		p.live("z")
		p.resume(l.token, l.cursors)
		if f := p.wantError(twinrail.CodeBadRequest, "r"); f.Field != "op" {
			t.Errorf("refused with %+v", f)
		}
		p, _ = l.greet(l.rig.token)
		fresh := p.resumes(l.token, l.cursors)
		p.follow(true, map[string]string{"a": "", "c": ""})
		p.resume(fresh.ResumeToken, l.cursors)
		p.wantError(twinrail.CodeBadRequest, "r")
		p.cut()
		p, _ = l.greet(l.rig.token)
		p.resumes(fresh.ResumeToken, l.cursors)
	})
}

// TestResumeItself has a connection resume its own session, with the token of its
// welcome: the session goes on.
func TestResumeItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		p, hello := r.greet(r.token)
		if f := p.resumes(hello.ResumeToken, nil); f.SessionID != hello.SessionID || len(f.Subs) > 0 {
			t.Errorf("resumed %+v", f)
		}
		token := p.subscribe(subC + `,"presence":1`).ResumeToken
		p.cut()
		p, _ = r.greet(r.token)
		if got := subsOf(p.resumes(token, nil)); got != "c:false[u_1=1]" {
			t.Errorf("resumed %s", got)
		}
	})
}

// TestResumeTokenIsNoCredential comes with a resume token in the place of a
// credential: nothing is upgraded.
func TestResumeTokenIsNoCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBubbleRig(t).lose()
		upgrade := header{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
			"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
		for name, resp := range map[string]reply{
			"none":        l.do("GET", wsPath, "", append(upgrade, "Sec-WebSocket-Protocol", "twinrail.v1")),
			"bearer":      l.do("GET", wsPath, "", append(upgrade, "Sec-WebSocket-Protocol", "twinrail.v1", "Authorization", "Bearer "+l.token)),
			"subprotocol": l.do("GET", wsPath, "", append(upgrade, "Sec-WebSocket-Protocol", "twinrail.v1, bearer."+l.token)),
			"ticket":      l.do("GET", wsPath+"&ticket="+l.token, "", append(upgrade, "Sec-WebSocket-Protocol", "twinrail.v1")),
			"expired":     l.do("GET", wsPath, "", append(upgrade, "Sec-WebSocket-Protocol", "twinrail.v1", "Authorization", "Bearer "+l.issuer.Token(authtest.ExpiresIn(-time.Hour)))),
		} {
			if resp.status != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", name, resp.status, resp.body)
			}
		}
	})
}

// failingTable fails on each change while that is switched on, as a full disk
// does.
type failingTable struct {
	table.Memory
	fails atomic.Bool
}

func (t *failingTable) Put(key string, value []byte, d table.Durability) error {
	if t.fails.Load() {
		return fmt.Errorf("%w: no space left", journal.ErrUnavailable)
	}
	return t.Memory.Put(key, value, d)
}

// TestResumeNotStored resumes where that cannot be made durable: it has not
// happened, to the new connection or to the old one, and can be tried again.
func TestResumeNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := new(failingTable)
		r := newBubbleRig(t, func(o *Options) { o.Sessions = sessions })
		old, _ := r.greet(r.token)
		token := old.subscribe(subC + `,"presence":1`).ResumeToken
		p, _ := r.greet(r.token)
		sessions.fails.Store(true)
		p.resume(token, nil)
		p.wantError(twinrail.CodeUnavailable, "r")
		resp := r.do("GET", wsPath, "", append(header{"Authorization", "Bearer " + r.token}, handshakeHeader...))
		problemOf(t, resp, twinrail.CodeUnavailable)
		old.silent("after the claim that failed")
		sessions.fails.Store(false)
		if got := subsOf(p.resumes(token, nil)); got != "c:false[u_1=1]" {
			t.Errorf("resumed %s", got)
		}
		old.takenOver()
	})
}

// TestResumeMany resumes as many subscriptions as a connection may have, and is
// refused by a server that lets it have fewer.
func TestResumeMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 128
		issuer, key := authtest.New(t), bytes.Repeat([]byte{7}, auth.MinSecret)
		sessions, j := new(table.Memory), journal.NewMemory(journal.MemoryOptions{})
		start := func(joins int) *rig {
			return newBubbleRigOf(t, issuer, func(o *Options) {
				o.MaxJoins, o.Journal, o.Sessions, o.Gate = joins, j, sessions, issuer.Gate(auth.GateOptions{Key: key})
			})
		}
		r := start(n)
		p, _ := r.greet(r.token)
		var token string
		cursors, want := make(map[string]string), make(map[string]string)
		for i := range n {
			name := fmt.Sprintf("thread-%d", i)
			joined := p.subscribe(fmt.Sprintf(`"sub":%q,"routing":{"thread_id":%q,"panel_id":"p%d"}`, name, name, i))
			token, cursors[name], want[name] = joined.ResumeToken, joined.Cursor, ""
		}
		p.cut()
		r.publish(on("thread-7", "p7", 7), on("thread-7", "p8", 8))
		want["thread-7"] = "7"
		r.server.Close()

		few := start(n - 1)
		p, _ = few.greet(r.token)
		p.resume(token, cursors)
		if f := p.wantError(twinrail.CodeLimitExceeded, "r"); f.Field != "joins" {
			t.Errorf("refused %+v", f)
		}
		p.live("z")
		few.server.Close()

		r = start(n)
		p, _ = r.greet(r.token)
		resumed := p.resumes(token, cursors)
		for i, s := range resumed.Subs {
			if s.Sub != fmt.Sprintf("thread-%d", i) || !s.Resumed || s.Cursor != cursors[s.Sub] {
				t.Errorf("sub %d: %+v", i, s)
			}
		}
		if len(resumed.Subs) != n {
			t.Errorf("%d of %d are resumed", len(resumed.Subs), n)
		}
		p.follow(true, want)
	})
}
