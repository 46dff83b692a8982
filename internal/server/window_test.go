package server

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// TestWindowBudget has subscribers of more streams than the budget holds: the
// metrics tell of it, and the subscribers see nothing of it.
func TestWindowBudget(t *testing.T) {
	const streams, events, budget = 5, 4, 20_000
	for name, budget := range map[string]int{"Default": 0, "None": -1, "Short": budget} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t, func(o *Options) { o.WindowBudget = budget })
				tails := make([]*tail, streams)
				path := func(i int) string { return strings.Replace(canvasPath, "c1?", fmt.Sprintf("c%d?", i), 1) }
				for i := range tails {
					tails[i] = r.tail(path(i))
					tails[i].open()
					tails[i].toLive()
				}
				for n := range events {
					for i := range tails {
						r.publish(fmt.Sprintf(`{"channel":"commit","type":"t","routing":{"canvas_id":"c%d"},"data":"%d%s"}`, i, n, strings.Repeat("x", 1500)))
					}
				}
				synctest.Wait()
				held, evicted := r.metric("twinrail_window_bytes"), r.metric("twinrail_window_evictions_total")
				if all := float64(streams * events * 1500); budget > 0 && (held == 0 || held > float64(budget) || evicted == 0) ||
					budget <= 0 && (held < all || evicted != 0) {
					t.Errorf("%v bytes are held and %v windows evicted", held, evicted)
				}
				_, text := r.operator("/metrics")
				for _, name := range []string{"window_bytes gauge", "window_evictions_total counter", "gestures_evicted_total counter"} {
					if !strings.Contains(text, "# TYPE twinrail_"+name+"\n") {
						t.Errorf("the metrics have no %s", name)
					}
				}
				for i, tl := range tails {
					for n := range events {
						if b := tl.want("commit"); !strings.Contains(b.data, fmt.Sprintf(`"data":"%dx`, n)) {
							t.Fatalf("stream %d: got %q, want event %d", i, b.data, n)
						}
					}
				}
			})
		})
	}
}
