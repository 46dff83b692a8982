package server

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
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

// TestWritesAreBounded has subscribers far behind, whose events are in memory, and on
// the journal: a connection holds no more of them at a time than one write takes.
func TestWritesAreBounded(t *testing.T) {
	const size, events = 4 << 10, 100
	for _, window := range []int{-1, 1 << 20} {
		for _, rail := range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
			t.Run(fmt.Sprintf("%s with a window of %d", rail, window), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t, func(o *Options) { o.Window = window })
					hot, thread := r.tail(canvasPath), r.peer() // which keep the windows
					hot.open()
					hot.toLive()
					first := thread.subscribe(subA)
					canvas := r.commits(0, 1)
					for range events {
						data := `"` + strings.Repeat("x", size) + `"`
						r.publish(strings.Replace(commit(1), `"data":1`, `"data":`+data, 1))
						r.publish(strings.Replace(chat(1), `"data":1`, `"data":`+data, 1))
					}
					synctest.Wait()
					var nc net.Conn
					if rail == twinrail.RailSSE {
						nc = r.tail(canvasPath + "&cursor=" + canvas.Cursor).nc
					} else {
						p := r.peer()
						p.say(`{"op":"join","sub":"a","routing":{"thread_id":"th1"},"after":"%s"}`, first.Cursor)
						nc = p.nc
					}
					buf := make([]byte, 1<<20)
					_ = nc.SetReadDeadline(time.Now().Add(patience))
					for got := 0; got < size*(events-10); {
						n, err := nc.Read(buf)
						if err != nil {
							t.Fatal(err)
						}
						if got += n; n > gatherLimit+2*size {
							t.Fatalf("%d bytes are written at once", n)
						}
					}
				})
			})
		}
	}
}
