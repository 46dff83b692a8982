package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// niAtWork is a script of A's in which it needs a bit of everything.
var niAtWork = []niOp{
	{do: "sse", m: 1}, {do: "ws", n: 1}, {do: "join"}, {do: "join", m: 2}, {do: "say", n: 1}, {do: "publish", n: 1, m: 1},
	{do: "gesture"}, {do: "history"}, {do: "ticket"}, {do: "sse", n: 1, m: 2}, {do: "login"}, {do: "sse", n: 6, m: 11},
	{do: "publish", n: 5}, {do: "gesture", n: 1}, {do: "publish", n: 3}, {do: "history", n: 1}, {do: "revoke", n: 8},
	{do: "cut"}, {do: "resume"}, {do: "renew"}, {do: "members", n: 1}, {do: "ticket"}, {do: "ws", m: 2},
	{do: "state"}, {do: "gesture", n: 2}, {do: "wait", n: 2}, {do: "sse", n: 2}, {do: "logout"},
}

// niConstantly returns what B does that does the same in every slot: one op, each
// time in another way where n is negative, and what that takes.
func niConstantly(do string, n int, takes ...niOp) (ops [][]niOp) {
	for k := range len(niPrologue) + len(niAtWork) {
		op := niOp{do: do, n: n, m: (k + k/12) % 12, at: k % 2, late: k%2 == 1}
		if n < 0 {
			op.n = k % 12
		}
		if (n == 7 || n == 8) && k%8 != 4 {
			op = niOp{do: "wait"} // tickets and cookies last
		}
		ops = append(ops, append(slices.Clone(takes), op, niOp{do: "mint"}))
	}
	return ops
}

// niWorlds are those of TestNonInterferenceOfEach: B is another tenant, the same
// one in another env, Tenant-0.
var niWorlds = []niScript{
	{foe: 0, window: 0},
	{foe: 1, window: 1, disk: true, http2: [2]bool{true, true}},
	{foe: 6, window: 1, disk: true, http2: [2]bool{true, false}},
}

// niOfRank is what might be more for Tenant-0 than for other tenants. The rest would
// take too long.
var niOfRank = append([]string{"flag", "flags", "revoke", "members", "bad"}, niHostile...)

// TestNonInterferenceOfEach has B do one thing all the time, for each thing that
// there is, while A is at work: what chance would find seldom.
func TestNonInterferenceOfEach(t *testing.T) {
	does := map[string][][]niOp{"pile": niConstantly("pile", 0)}
	for _, do := range slices.Concat(niOwn, niHostile) {
		does[do] = niConstantly(do, -1)
	}
	does["stall"] = niConstantly("stall", -1, niOp{do: "sse"}, niOp{do: "publish", m: 5})
	for n := range 12 {
		does[fmt.Sprint("flood ", n)] = niConstantly("flood", n)
	}
	for _, s := range niWorlds {
		s.a = niAtWork
		alone, _ := s.play(t, false)
		foe := niFoes[s.foe]
		for _, do := range slices.Sorted(maps.Keys(does)) {
			if foe.tenant == "t_0" && !slices.Contains(niOfRank, do) {
				continue
			}
			t.Run(fmt.Sprintf("%s by %s in %s", do, foe.tenant, foe.env), func(t *testing.T) {
				s.slow, s.b = strings.HasPrefix(do, "p"), does[do]
				if wrong := s.beside(t, alone); wrong != "" {
					t.Fatal(wrong)
				}
			})
		}
	}
}
