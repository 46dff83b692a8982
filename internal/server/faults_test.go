package server

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

var updateFaults = flag.Bool("update-faults", false, "have TestFaults write the table in docs/faults.md")

// faultScenario is a fault, and what is known of it beforehand: spans of time
// since its beginning.
type faultScenario struct {
	name    string
	fault   string        // as the table has it
	life    time.Duration // of the clients' first tokens; default a day
	renews  bool          // the clients renew them in time
	keep    int64         // events of each stream that are retained; default all
	crowd   int           // clients on each rail; default 1
	play    func(*faultWorld)
	sse, ws faultTimes
}

// faultTimes says when a client is back, and when the server ends the connection
// that the fault hit.
type faultTimes struct{ back, ends span }

// span is from lo to hi. Where something does not happen, it is zero.
type span struct{ lo, hi time.Duration }

func at(d time.Duration) span { return span{d, d} }

// slack is what the gathering of writes and of changes may add.
const slack = 100 * time.Millisecond

func (s span) has(d time.Duration) bool { return s.lo <= d && d <= s.hi+slack }

func (s span) String() string {
	if s.lo == s.hi {
		return fmt.Sprintf("%g s", s.lo.Seconds())
	}
	return fmt.Sprintf("%g–%g s", s.lo.Seconds(), s.hi.Seconds())
}

var faultScenarios = []faultScenario{
	{
		name:  "killed",
		fault: "process killed, up again 1.5 s later",
		play: func(w *faultWorld) {
			w.kill()
			w.pass(1500 * time.Millisecond)
			w.start()
			w.pass(20 * time.Second)
		},
		sse: faultTimes{back: span{2 * time.Second, 5 * time.Second}},
		ws:  faultTimes{back: at(3 * time.Second)},
	},
	{
		name:  "cut 5 s",
		fault: "network cut for 5 s",
		play:  func(w *faultWorld) { w.cut(5 * time.Second) },
		sse:   faultTimes{back: span{5 * time.Second, 10 * time.Second}},
		ws:    faultTimes{back: at(7 * time.Second)},
	},
	{
		name:  "cut 5 min",
		fault: "network cut for 5 min",
		play:  func(w *faultWorld) { w.cut(5 * time.Minute) },
		sse:   faultTimes{back: span{300 * time.Second, 330 * time.Second}},
		ws:    faultTimes{back: at(301 * time.Second)},
	},
	{
		name:  "half-open",
		fault: "half-open connection; the client finds out by the silence",
		play: func(w *faultWorld) {
			w.each(func(c *modelClient) { c.net.last().swallow() })
			w.pass(3 * time.Minute)
		},
		sse: faultTimes{back: span{maxSilence + 2*time.Second, maxSilence + 5*time.Second}, ends: span{99 * time.Second, 103 * time.Second}},
		ws:  faultTimes{back: at(maxSilence + firstBackoff), ends: at(28 * time.Second)},
	},
	{
		name:  "half-open, taken over",
		fault: "half-open connection; the client gives it up at once, and has another network",
		play: func(w *faultWorld) {
			w.each(func(c *modelClient) {
				c.net.last().swallow()
				c.hop()
			})
			w.pass(3 * time.Minute)
		},
		sse: faultTimes{back: span{2 * time.Second, 5 * time.Second}, ends: span{99 * time.Second, 103 * time.Second}},
		ws:  faultTimes{back: at(time.Second), ends: at(time.Second)},
	},
	{
		name:  "expired",
		fault: "token expired",
		life:  time.Minute,
		play: func(w *faultWorld) {
			w.faultAt(w.started.Add(time.Minute))
			w.pass(time.Minute)
		},
		sse: faultTimes{back: span{2 * time.Second, 5 * time.Second}},
		ws:  faultTimes{back: at(time.Second)},
	},
	{
		name:   "renewed",
		fault:  "token about to expire, renewed in time",
		life:   time.Minute,
		renews: true,
		play: func(w *faultWorld) {
			w.faultAt(w.started.Add(time.Minute))
			w.pass(time.Minute)
		},
	},
	{
		name:  "revoked",
		fault: "token revoked; the user signs in anew after 10 s",
		play: func(w *faultWorld) {
			w.revoke()
			w.pass(10 * time.Second)
			w.each(func(c *modelClient) {
				c.connect()
				c.signIn(w.mint(c.actor, 0))
				w.running.Go(c.run)
			})
		},
		sse: faultTimes{back: at(10 * time.Second)},
		ws:  faultTimes{back: at(10 * time.Second)},
	},
	{
		name:  "drained",
		fault: "server drained, up again 0.5 s later; 10 clients on each rail",
		crowd: 10,
		play: func(w *faultWorld) {
			w.drain()
			w.pass(500 * time.Millisecond)
			w.start()
			w.pass(20 * time.Second)
			w.checkSpread()
		},
		sse: faultTimes{back: span{time.Second, 11 * time.Second}},
		ws:  faultTimes{back: span{time.Second, 11 * time.Second}},
	},
	{
		name:  "cursor too old",
		fault: "cursor too old: the network cut for 90 s, events kept for 20 s",
		keep:  20,
		play: func(w *faultWorld) {
			w.cut(90 * time.Second)
			w.each(func(c *modelClient) { c.note(func(n *modelNotes) { n.frozen = true }) })
			w.cut(time.Second) // nobody is told again
		},
		sse: faultTimes{back: span{90 * time.Second, 120 * time.Second}},
		ws:  faultTimes{back: at(91 * time.Second)},
	},
	{
		name:  "slow reader",
		fault: "slow reader: takes 4 KB/s, while 10 KB/s are published for a minute",
		play: func(w *faultWorld) {
			w.each(func(c *modelClient) { c.net.last().down.slow(4 << 10) })
			w.publishEvery(500*time.Millisecond, 5)
			w.pass(time.Minute)
			w.publishEvery(time.Second, 1)
		},
	},
	{
		name:  "stopped reader",
		fault: "slow reader: reads nothing for a minute, while 10 KB/s are published",
		play: func(w *faultWorld) {
			w.each((*modelClient).busy)
			w.publishEvery(500*time.Millisecond, 5)
			w.pass(time.Minute)
			w.publishEvery(time.Second, 1)
			w.each((*modelClient).free)
			w.pass(time.Minute)
		},
		sse: faultTimes{back: span{62 * time.Second, 65 * time.Second}, ends: span{37 * time.Second, 38 * time.Second}},
		ws:  faultTimes{back: at(61 * time.Second), ends: span{37 * time.Second, 38 * time.Second}},
	},
	{
		name:  "overtaken reader",
		fault: "slow reader: reads nothing for 20 s, and retention overtakes it",
		keep:  50,
		play: func(w *faultWorld) {
			w.each((*modelClient).busy)
			w.publishEvery(100*time.Millisecond, 10)
			w.pass(20 * time.Second)
			w.publishEvery(time.Second, 1)
			w.each((*modelClient).free)
		},
	},
	{
		name:  "asleep",
		fault: "laptop asleep for 10 min",
		play: func(w *faultWorld) {
			w.each((*modelClient).sleep)
			w.pass(10 * time.Minute)
			w.each((*modelClient).wake)
			w.pass(time.Minute)
		},
		sse: faultTimes{back: span{602 * time.Second, 605 * time.Second}, ends: span{99 * time.Second, 103 * time.Second}},
		ws:  faultTimes{back: at(601 * time.Second), ends: at(28 * time.Second)},
	},
}

const (
	faultsFile  = "../../docs/faults.md"
	faultsBegin = "<!-- from here on TestFaults writes -->\n"
	faultsEnd   = "<!-- up to here -->\n"
	faultsHead  = "| fault | rail | the client is told | the server ends the connection | the client is back | and gets | others see of its presence |\n" +
		"| --- | --- | --- | --- | --- | --- | --- |\n"
)

// TestFaults plays every fault with real spans of time, which cost nothing in a
// bubble, to a client of each rail; checks that what was promised held; and
// compares what happened with the table in docs/faults.md.
func TestFaults(t *testing.T) {
	got, played := faultsHead, 0
	for i := range faultScenarios {
		s := &faultScenarios[i]
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { got += s.run(t) })
			played++
		})
	}
	if t.Failed() || played < len(faultScenarios) {
		return
	}
	page, err := os.ReadFile(faultsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), faultsBegin)
	was, after, ends := strings.Cut(rest, faultsEnd)
	switch {
	case !begins || !ends:
		t.Fatalf("%s has no place for the table", faultsFile)
	case got == was:
	case *updateFaults:
		if err := os.WriteFile(faultsFile, []byte(before+faultsBegin+got+faultsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what happens; with -update-faults it becomes\n%s", faultsFile, got)
	}
}

// run returns the fault's rows of the table.
func (s *faultScenario) run(t *testing.T) string {
	w := newFaultWorld(t, s)
	defer w.close()
	s.play(w)
	w.settle()
	rows := make(map[twinrail.Rail]string)
	w.each(func(c *modelClient) {
		times := s.sse
		if c.rail == twinrail.RailWS {
			times = s.ws
		}
		row := w.observe(c, times).String()
		if other := rows[c.rail]; other != "" && other != row {
			t.Errorf("one client of the crowd had\n%s\nanother one\n%s", other, row)
		}
		rows[c.rail] = row
	})
	return "| " + s.fault + " | SSE | " + rows[twinrail.RailSSE] + "| | WS | " + rows[twinrail.RailWS]
}

// faultRow is what became of a client.
type faultRow struct{ told, ends, back, gets, others string }

func (r faultRow) String() string {
	return strings.Join([]string{r.told, r.ends, r.back, r.gets, r.others}, " | ") + " |\n"
}
