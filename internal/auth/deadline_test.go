package auth

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDeadlines against a map that is searched.
func TestDeadlines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deadlines[int]
		model := make(map[int]time.Time)
		at := func() time.Time { return time.Unix(rapid.Int64Range(0, 20).Draw(t, "at"), 0) }
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			key := rapid.IntRange(0, 9).Draw(t, "key")
			switch rapid.SampledFrom([]string{"set", "set", "remove", "due"}).Draw(t, "what") {
			case "set":
				model[key] = at()
				d.set(key, model[key])
			case "remove":
				delete(model, key)
				d.remove(key)
			case "due":
				now := at()
				got, ok := d.due(now)
				want := false
				for k, at := range model {
					want = want || !at.After(now)
					if ok && at.Before(model[got]) {
						t.Fatalf("%d before %d", got, k)
					}
				}
				if _, held := model[got]; ok != want || ok && !held {
					t.Fatalf("got %d, %t; want %t", got, ok, want)
				}
				if ok {
					delete(model, got)
				}
			}
			if len(d.queue.items) != len(model) || len(d.queue.place) != len(model) {
				t.Fatalf("holds %d, want %d", len(d.queue.items), len(model))
			}
		}
	})
}
