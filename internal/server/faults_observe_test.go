package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// observe checks what became of a client, and returns it for the table.
func (w *faultWorld) observe(c *modelClient, times faultTimes) faultRow {
	w.t.Helper()
	n := c.notes()
	if n.broken != nil {
		w.t.Errorf("%s: %v", c.actor, n.broken)
	}
	told := "nothing"
	if len(n.told) > 0 {
		told = strings.Join(slices.Compact(n.told), ", ")
	}
	return faultRow{
		told: told, ends: w.howEnded(c, times.ends), back: w.howBack(c, &n, times.back),
		gets: w.whatCame(c, &n), others: w.whatOthersSaw(c, &n, times),
	}
}

// howEnded says what the server did with the connection that the fault hit.
func (w *faultWorld) howEnded(c *modelClient, expect span) string {
	w.t.Helper()
	ended, cut := w.lines[c].end()
	switch {
	case cut:
		return "–"
	case ended.IsZero():
		return "keeps it"
	}
	if after := ended.Sub(w.fault); !expect.has(after) {
		w.t.Errorf("%s: the server ended the connection after %v, want %v", c.actor, after, expect)
	}
	var codes []string
	for code := range twinrail.Codes() {
		for _, r := range w.servers {
			if r.metric(fmt.Sprintf(`twinrail_connections_closed_total{code=%q,rail=%q}`, code, c.rail)) > 0 {
				codes = append(codes, "`"+string(code)+"`")
			}
		}
	}
	slices.Sort(codes)
	if expect == (span{}) {
		return "at once: " + strings.Join(codes, ", ")
	}
	return "after " + expect.String() + ": " + strings.Join(codes, ", ")
}

// howBack says how the client came back after the fault.
func (w *faultWorld) howBack(c *modelClient, n *modelNotes, expect span) string {
	w.t.Helper()
	if len(n.returns) == 0 {
		if expect != (span{}) {
			w.t.Errorf("%s is not back", c.actor)
		}
		return "was not away"
	}
	back := n.returns[0]
	if after := back.at.Sub(w.fault); !expect.has(after) {
		w.t.Errorf("%s is back after %v, want %v", c.actor, after, expect)
	}
	how := "after " + expect.String() + ": " + back.how
	if len(w.clients) > 2 {
		how = "each at its own moment, " + how
	}
	if n.tried != "" {
		return "tries, and is answered " + n.tried + "; with a new token " + how
	}
	return how
}

// whatCame checks that every event came once, in order, unless a reset told that
// some are missing.
func (w *faultWorld) whatCame(c *modelClient, n *modelNotes) string {
	w.t.Helper()
	missing := 0
	for i, got := range n.events {
		want := i + missing
		if got != want && n.resets == 1 && missing == 0 && got == n.head {
			missing = got - want
			want = got
		}
		if got != want {
			w.t.Errorf("%s got event %d where %d was due", c.actor, got, want)
			break
		}
	}
	switch last := len(n.events) + missing; {
	case last != w.published:
		w.t.Errorf("%s got events up to %d of %d", c.actor, last, w.published)
	case n.resets > 1, n.resets == 1 && missing == 0:
		w.t.Errorf("%s was told of %d resets, and missed %d events", c.actor, n.resets, missing)
	}
	switch {
	case missing > 0:
		return "one `reset` in place of what is gone, then every event once"
	case n.lastAt.Sub(w.lastAt) > 10*time.Second:
		return "every event once, late"
	}
	return "every event once"
}

// whatOthersSaw checks what the watcher saw of a client's presence: it leaves when
// its connection has been gone for the grace, or at once where it is told to stop.
func (w *faultWorld) whatOthersSaw(c *modelClient, n *modelNotes, times faultTimes) string {
	w.t.Helper()
	if c.rail == twinrail.RailSSE {
		return "–"
	}
	const grace = 10 * time.Second
	lost, _ := w.lines[c].end()
	left, saw := lost.Add(grace), "nothing"
	var want []sighting
	var back time.Time
	if len(n.returns) > 0 {
		back = n.returns[0].at
	}
	leaves := "after " + span{times.ends.lo + grace, times.ends.hi + grace}.String()
	switch {
	case w.restarted:
		saw = "gone with the process, `join` on its return"
		want = []sighting{{back, c.actor, "join"}}
	case n.tried != "":
		left, leaves = lost, "at once"
		fallthrough
	case !lost.IsZero() && back.After(left):
		saw = "`leave` " + leaves + ", `join` on its return"
		want = []sighting{{left, c.actor, "leave"}, {back, c.actor, "join"}}
	}
	got := w.watchers[len(w.watchers)-1].of(c.actor, w.fault)
	same := slices.EqualFunc(got, want, func(a, b sighting) bool {
		return a.what == b.what && a.at.Sub(b.at).Abs() <= slack
	})
	if !same {
		w.t.Errorf("others saw of %s %v, want %v", c.actor, got, want)
	}
	w.checkPresent(c.actor)
	return saw
}

// checkPresent checks that the actor is there once in the end, with its state.
func (w *faultWorld) checkPresent(actor string) {
	w.t.Helper()
	var got twinrail.PresenceResponse
	unmarshal(w.t, w.server().get(twinrail.PathPresence+"?"+appQuery+"&thread_id=th1").body, &got)
	there := 0
	for _, m := range got.Members {
		if m.ActorID == actor && string(m.State) == modelState {
			there++
		}
	}
	if there != 1 {
		w.t.Errorf("%s is present %d times at the end", actor, there)
	}
}

// checkSpread checks that a drained crowd comes back over the whole of the drain
// window: with as many in each half of it, and never many at once.
func (w *faultWorld) checkSpread() {
	w.t.Helper()
	var returns []time.Duration
	w.each(func(c *modelClient) {
		if n := c.notes(); len(n.returns) == 1 {
			returns = append(returns, n.returns[0].at.Sub(w.fault))
		}
	})
	slices.Sort(returns)
	for i := range len(returns) - 4 {
		if within := returns[i+4] - returns[i]; within < time.Second {
			w.t.Errorf("5 clients come back within %v: %v", within, returns)
		}
	}
	if len(returns) != len(w.clients) || returns[len(returns)-1]-returns[0] < 8*time.Second {
		w.t.Errorf("%d clients are back, at %v", len(w.clients), returns)
	}
}
