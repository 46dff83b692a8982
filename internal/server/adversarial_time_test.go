package server

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// A round of times takes so many of each kind, in an order that is drawn.
const (
	timedRounds  = 5
	timedOfKind  = 300
	timedPercent = 25 // how far from one half is telling, in percent
)

// tells reports whether times tell two kinds of request apart, and how well in the
// round that does it least.
//
// In each round the requests of both kinds are mixed, so that whatever else the
// machine does falls on both alike. Of all pairs of one of either kind it is
// counted in how many the second takes longer (the statistic of Mann and Whitney,
// as a part of all pairs): one half where the kinds are alike, and its standard
// deviation with 300 of each is 0.024 whatever the distribution is. A round is
// telling beyond 0.25 from one half, which is ten of these; and five rounds of five
// have to be, to the same side. A burst of load spoils a round at most, and only if
// it comes to hit one kind; so the test fails for a difference, and for nothing
// else.
func tells(t *testing.T, ask func(kind int)) (telling bool, least float64) {
	t.Helper()
	return tellsPrepared(t, func(kind int) func() { return func() { ask(kind) } })
}

// tellsPrepared is tells, where what a request takes is made before its time
// begins.
func tellsPrepared(t *testing.T, prepare func(kind int) (ask func())) (telling bool, least float64) {
	t.Helper()
	least = 1
	side := 0
	for range timedRounds {
		order := make([]int, 2*timedOfKind)
		for i := range order {
			order[i] = i % 2
		}
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		var took [2][]time.Duration
		for _, kind := range order {
			ask := prepare(kind)
			start := time.Now()
			ask()
			took[kind] = append(took[kind], time.Since(start))
		}
		off := slower(took[0], took[1]) - 0.5
		least = min(least, math.Abs(off))
		switch {
		case math.Abs(off) < timedPercent/100.0:
		case off > 0:
			side++
		default:
			side--
		}
	}
	return side == timedRounds || side == -timedRounds, least
}

// slower returns in what part of all pairs b takes longer than a; a tie is a half.
func slower(a, b []time.Duration) float64 {
	a = slices.Sorted(slices.Values(a))
	var longer float64
	for _, d := range b {
		from, _ := slices.BinarySearch(a, d)
		to, _ := slices.BinarySearch(a, d+1)
		longer += float64(from+to) / 2
	}
	return longer / float64(len(a)*len(b))
}

// TestNotYoursTakesAsLong compares, for each way to ask, the times of what is not
// granted with those of what does not exist.
func TestNotYoursTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	for _, way := range slices.Sorted(maps.Keys(unreachableBy)) {
		for _, thing := range []string{"theirs", "others"} {
			names := []string{thing, "nobody"}
			if telling, least := tells(t, func(kind int) { d.ask(unreachableBy[way](d, names[kind], as(token))) }); telling {
				t.Errorf("%s: time tells %s from what does not exist, by %.2f of all pairs at least", way, thing, least)
			}
		}
	}
	p := d.drive(wsPath, token)
	theirs := d.drive(wsPath, d.issuer.Token())
	d.server.mu.Lock()
	theirs.conn.id = "c_theirs"
	d.server.connections.add(theirs.conn)
	d.server.mu.Unlock()
	t.Cleanup(func() {
		d.server.mu.Lock()
		d.server.connections.remove(theirs.conn)
		d.server.mu.Unlock()
	})
	paths := []string{renewalPath("c_theirs"), renewalPath("c_nobody")}
	if a, b := whole(d.do("POST", paths[0], "", append(slices.Clone(fixed), as(token)...))), whole(d.do("POST", paths[1], "", append(slices.Clone(fixed), as(token)...))); a != b {
		t.Errorf("renewal of another's connection\n%s\nof none\n%s", a, b)
	}
	if telling, least := tells(t, func(kind int) { d.do("POST", paths[kind], "", as(token)) }); telling {
		t.Errorf("renewal: time tells another's connection from none, by %.2f of all pairs at least", least)
	}
	frames := [2][]byte{}
	for kind, name := range []string{"theirs", "nobody"} {
		frames[kind] = fmt.Appendf(nil, `{"op":"join","sub":"s","routing":{"thread_id":%q}}`, name)
	}
	if telling, least := tells(t, func(kind int) { _ = p.conn.handle(frames[kind]); p.conn.out = nil }); telling {
		t.Errorf("join: time tells what is there from what is not, by %.2f of all pairs at least", least)
	}
}

// TestNotYoursTakesAsLongCarried is [TestNotYoursTakesAsLong] by tickets and
// cookies, and for a ticket that was used and a session that has ended in place of
// those that never were.
func TestNotYoursTakesAsLongCarried(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	names := []string{"theirs", "nobody"}
	for _, by := range []string{"ticket", "cookie"} {
		for _, way := range []string{"sse", "history of a canvas", "publish a chat, expecting"} {
			telling, least := tellsPrepared(t, func(kind int) func() {
				r := unreachableBy[way](d, names[kind], as(token))
				unreachableWith[by](d, token, r)
				return func() { d.ask(r) }
			})
			if telling {
				t.Errorf("%s by %s: time tells theirs from what does not exist, by %.2f of all pairs at least", way, by, least)
			}
		}
		spent := d.request("GET", historyPath, "", "", append(slices.Clone(fixed), as(token)...))
		unreachableWith[by](d, token, spent)
		never := spent.Clone(t.Context())
		if by == "ticket" {
			d.ask(spent)
			never.URL.RawQuery = spent.URL.RawQuery[:len(spent.URL.RawQuery)-43] + strings.Repeat("A", 43)
		} else {
			ending := d.request("DELETE", sessionPath, "", "", nil)
			ending.Header = spent.Header.Clone()
			if resp := d.ask(ending); resp.status != http.StatusNoContent {
				t.Fatalf("%d %s", resp.status, resp.body)
			}
			cookie := spent.Header.Get("Cookie")
			never.Header.Set("Cookie", cookie[:len(cookie)-43]+strings.Repeat("A", 43))
		}
		alikeInTime(t, by+" of the past", func(kind int) reply { return d.ask([]*http.Request{spent, never}[kind]) }, twinrail.CodeCredentialInvalid)
	}
}

// alikeInTime requires that two kinds of request are refused with the code, by the
// same bytes, and after as long.
func alikeInTime(t *testing.T, what string, ask func(kind int) reply, code twinrail.Code) {
	t.Helper()
	one, other := ask(0), ask(1)
	if codeOf(t, what, one) != code {
		t.Errorf("%s: %s", what, one.body)
	}
	if a, b := whole(one), whole(other); a != b {
		t.Errorf("%s\n%s\nof what does not exist\n%s", what, a, b)
	}
	if telling, least := tells(t, func(kind int) { ask(kind) }); telling {
		t.Errorf("%s: time tells it from what does not exist, by %.2f of all pairs at least", what, least)
	}
}

// TestAdministrationTakesAsLong has no right to it: neither flags nor what may be
// revoked can be told from what does not exist.
func TestAdministrationTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	if resp := d.do("PUT", flagsPath("replay"), `{"value":false}`, as(d.issuer.Token(authtest.Role(twinrail.Owner)))); resp.status != http.StatusOK {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	for what, asks := range map[string][2][3]string{
		"setting a flag":    {{"PUT", flagsPath("replay"), `{"value":true}`}, {"PUT", flagsPath("nosuch"), `{"value":true}`}},
		"unsetting a flag":  {{"DELETE", flagsPath("replay"), ""}, {"DELETE", flagsPath("nosuch"), ""}},
		"revoking an actor": {{"POST", revocationsPath, `{"actor_id":"u_1"}`}, {"POST", revocationsPath, `{"actor_id":"u_0"}`}},
	} {
		alikeInTime(t, what, func(kind int) reply {
			return d.do(asks[kind][0], asks[kind][1], asks[kind][2], append(slices.Clone(fixed), as(token)...))
		}, twinrail.CodeNotFound)
	}
}

// TestResumeTakesAsLong resumes with the token of another actor, whose session is
// there or over; and one's own session with a grant that does not cover what was
// joined, where there is something or nothing.
func TestResumeTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	joined := func(as, thread string) (p *driven, frame []byte) {
		p = d.drive(wsPath, as)
		frames, err := p.say(fmt.Sprintf(`{"op":"join","sub":"s","routing":{"thread_id":%q}}`, thread))
		if err != nil || len(frames) != 1 || frames[0].ResumeToken == "" {
			t.Fatal(frames, err)
		}
		p.leave("s")
		return p, fmt.Appendf(nil, `{"op":"resume","resume_token":%q,"cursors":{"s":"x"}}`, frames[0].ResumeToken)
	}
	resume := func(p *driven, frame []byte) string {
		if err := p.conn.handle(frame); err != nil {
			t.Fatal(err)
		}
		out := string(p.conn.out)
		p.conn.out = nil
		return out
	}
	_, alive := joined(d.issuer.Token(), "theirs")
	gone, over := joined(d.issuer.Token(), "theirs")
	gone.conn.session.End(gone.conn)
	p, foreign := d.drive(wsPath, token), [2][]byte{alive, over}
	if one, other := resume(p, alive), resume(p, over); one != other || !strings.Contains(one, `"resume_invalid"`) {
		t.Errorf("another's session that is there\n%s\nthat is over\n%s", one, other)
	}
	if telling, least := tells(t, func(kind int) { resume(p, foreign[kind]) }); telling {
		t.Errorf("time tells another's session that is there from one that is over, by %.2f of all pairs at least", least)
	}
	full := d.issuer.Token(authtest.Actor("u_9"))
	_, own := joined(full, "theirs")
	if said := resume(d.drive(wsPath, token), own); !strings.Contains(said, `"resumed"`) || !strings.Contains(said, `"not_found"`) {
		t.Errorf("one's own session, with a grant that does not cover what was joined: %s", said)
	}
	telling, least := tellsPrepared(t, func(kind int) func() {
		_, frame := joined(full, []string{"theirs", "nobody"}[kind])
		p := d.drive(wsPath, token)
		return func() { resume(p, frame) }
	})
	if telling {
		t.Errorf("time tells a subscription to what is there from one to what is not, by %.2f of all pairs at least", least)
	}
}

// TestTimesTell has one kind take half as long again, as a look at a stream that is
// there would: the same statistic notices. A control may be repeated where the
// machine is too busy for it; an alarm may not.
func TestTimesTell(t *testing.T) {
	d, token := newUnreachable(t)
	ask := func() { d.ask(unreachableBy["history of a canvas"](d, "nobody", as(token))) }
	start := time.Now()
	for range timedOfKind {
		ask()
	}
	half := time.Since(start) / timedOfKind / 2
	for name, more := range map[string]func(){
		"a page of history more": func() { d.do("GET", strings.Replace(historyPath, "c1", "mine", 1), "", as(token)) },
		half.String() + " more": func() {
			for start := time.Now(); time.Since(start) < half; {
			}
		},
	} {
		noticed, least := false, 0.0
		for try := 0; try < 5 && !noticed; try++ {
			noticed, least = tells(t, func(kind int) {
				if kind == 1 {
					more()
				}
				ask()
			})
		}
		if !noticed {
			t.Errorf("%s goes unnoticed: %.2f", name, least)
		}
	}
}
