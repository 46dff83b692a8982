package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// niScript is what two tenants do: A one op after the other, each in a slot of
// time of its own; B any number in each of A's slots.
type niScript struct {
	foe    int // who B is, of niFoes
	window int // of the hub, of niWindows
	slow   bool
	disk   bool    // has all that is kept
	http2  [2]bool // whether A speaks it, and B
	a      []niOp
	b      [][]niOp // by slot of A's
}

// niFoes are the tenants that B may be. A is t_acme in dev.
var niFoes = []struct{ tenant, env string }{
	{"t_beta", "dev"},
	{"t_acme", "prod"}, // the same tenant in another env
	{"t_acme-", "dev"}, // A's name is a prefix of it
	{"t_acm", "dev"},   // and it of A's
	{"t_0_", "dev"},    // nearly the platform's
	{"t_acme_dev", "staging"},
	{"t_0", "dev"},  // the platform's, but that it changes no default
	{"t_0", "prod"}, // and in another env, where it may
}

// niWindows are what the hub holds of each stream: nothing, so that every
// subscriber reads the journal; next to nothing; all.
var niWindows = []int{-1, 1 << 10, 1 << 20}

// The first and the last that A does, whatever the script says (B does the first,
// too): so that gestures flow, one a second; and that what a script has changed
// shows. A's credentials may all be void by then.
var (
	niPrologue = []niOp{{do: "wait"}, {do: "flag", n: 2, m: 1}, {do: "flag", n: 3}}
	niEpilogue = []niOp{
		{do: "wait", n: 2}, {do: "mint"}, {do: "mint", actor: 1}, {do: "flags"},
		{do: "history"}, {do: "history", at: 1}, {do: "history", n: 1}, {do: "history", at: 1, n: 1},
		{do: "members"}, {do: "members", at: 1}, {do: "sse", n: 1}, {do: "publish", n: 1, m: 6}, {do: "gesture"},
		{do: "wait", n: 2},
	}
)

func drawNIScript(t *rapid.T, hostile bool) niScript {
	s := niScript{
		foe:    rapid.IntRange(0, len(niFoes)-1).Draw(t, "B is"),
		window: rapid.IntRange(0, len(niWindows)-1).Draw(t, "window"),
		slow:   rapid.Bool().Draw(t, "B's journal is slow"),
		disk:   rapid.IntRange(0, 3).Draw(t, "the journal is on disk") == 3,
		http2:  [2]bool{rapid.Bool().Draw(t, "A speaks HTTP/2"), rapid.Bool().Draw(t, "B speaks HTTP/2")},
	}
	s.a = rapid.SliceOfN(drawNIOp(niOwn), 8, 24).Draw(t, "A does")
	if !hostile {
		return s
	}
	mostly := slices.Concat(niOwn, niHostile, niHostile)
	s.b = rapid.SliceOfN(rapid.SliceOfN(drawNIOp(mostly), 0, 4), 6, len(s.a)+len(niPrologue)).Draw(t, "B does, in each of A's slots")
	return s
}

func drawNIOp(kinds []string) *rapid.Generator[niOp] {
	return rapid.Custom(func(t *rapid.T) niOp {
		return niOp{
			do:    rapid.SampledFrom(kinds).Draw(t, "do"),
			actor: rapid.IntRange(0, 1).Draw(t, "actor"),
			at:    rapid.IntRange(0, 1).Draw(t, "at"),
			n:     rapid.IntRange(0, 11).Draw(t, "n"),
			m:     rapid.IntRange(0, 11).Draw(t, "m"),
			late:  rapid.Bool().Draw(t, "late"),
		}
	})
}

// String writes s such that it can be read beside the transcripts.
func (s niScript) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "B is %v, window %d, B's journal slow: %t, on disk: %t, HTTP/2 of A and B: %t\n",
		niFoes[s.foe], niWindows[s.window], s.slow, s.disk, s.http2)
	for k, op := range s.whole() {
		fmt.Fprintf(&b, "%3d A %+v\n", k, op)
		if k < len(s.b) {
			for _, op := range s.b[k] {
				fmt.Fprintf(&b, "      B %+v\n", op)
			}
		}
	}
	return b.String()
}

// whole returns what A does.
func (s niScript) whole() []niOp { return slices.Concat(niPrologue, s.a, niEpilogue) }

// play runs the script in a world of its own, with B or without, and returns all
// that A received, and all that B did.
func (s niScript) play(t *testing.T, withB bool) (a, b []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newNIWorld(t, s)
		if withB {
			w.running.Go(w.leadB)
		}
		a = w.leadA()
		b = w.close()
	})
	return a, b
}

// difference returns where two transcripts differ first, or "".
func difference(alone, beside []string) string {
	for i := range max(len(alone), len(beside)) {
		one, other := "(nothing)", "(nothing)"
		if i < len(alone) {
			one = alone[i]
		}
		if i < len(beside) {
			other = beside[i]
		}
		if one != other {
			return fmt.Sprintf("after\n  %s\nA alone receives\n  %s\nand beside B\n  %s",
				strings.Join(alone[max(0, min(i, len(alone))-3):min(i, len(alone))], "\n  "), one, other)
		}
	}
	return ""
}

// check plays the script without B and with it, and returns what is wrong.
func (s niScript) check(t *testing.T) string {
	alone, _ := s.play(t, false)
	return s.beside(t, alone)
}

// beside is check where what A receives alone is known.
func (s niScript) beside(t *testing.T, alone []string) string {
	beside, heard := s.play(t, true)
	if d := difference(alone, beside); d != "" {
		return d
	}
	for _, line := range heard {
		if strings.Contains(line, niMark) {
			return "B has heard of A:\n  " + line
		}
	}
	return ""
}

// TestNonInterference has tenant A do the same twice, once alone and once beside a
// tenant B that does whatever it likes, with the same names for everything and
// with whatever it may have seen of A's: A receives the same bytes at the same
// time, and B nothing of A's.
func TestNonInterference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawNIScript(rt, true)
		if wrong := s.check(t); wrong != "" {
			rt.Fatalf("%s\n%s", s, wrong)
		}
	})
}

// TestNonInterferenceIsMeasurable has A do the same twice, alone: what else than
// B might make a difference makes none.
func TestNonInterferenceIsMeasurable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawNIScript(rt, false)
		first, _ := s.play(t, false)
		second, _ := s.play(t, false)
		if d := difference(first, second); d != "" {
			rt.Fatalf("%s\n%s", s, d)
		}
	})
}

// niSlot is how long an op of A's has until the next, but for a wait.
const niSlot = time.Second

// residue is how long after the whole second A's kth op comes: no two in one
// script, and none of those at a whole second, where tokens expire, so that no
// timer of one op runs out in the moment of another one.
func residue(k int) time.Duration { return time.Duration(k+1) * 7 * time.Millisecond }
