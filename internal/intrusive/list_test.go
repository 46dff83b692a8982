package intrusive

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type node struct {
	id int
	Links[node]
}

// TestList pushes and removes at random, and compares both directions with a
// slice after each step.
func TestList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l List[node, *node]
		var want []*node
		for i := range 60 {
			if len(want) > 0 && rapid.Bool().Draw(t, "remove") {
				at := rapid.IntRange(0, len(want)-1).Draw(t, "at")
				x := want[at]
				l.Remove(x)
				want = slices.Delete(want, at, at+1)
				if x.Next() != nil || x.Prev() != nil {
					t.Fatalf("%d was removed, and keeps others", x.id)
				}
			} else {
				x := &node{id: i}
				l.Push(x)
				want = append(want, x)
			}
			var forth, back []*node
			for x := l.First(); x != nil; x = x.Next() {
				forth = append(forth, x)
			}
			for x := l.Last(); x != nil; x = x.Prev() {
				back = append(back, x)
			}
			slices.Reverse(back)
			if l.Len() != len(want) || !slices.Equal(forth, want) || !slices.Equal(back, want) {
				t.Fatalf("%d of %d: %v, %v, want %v", l.Len(), len(want), forth, back, want)
			}
		}
	})
}
