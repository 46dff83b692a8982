package server

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twinrail/twinrail"
)

// TestTranscripts has subscribers of both rails come in while publishers race,
// by different ways: all see the same events, linked without a gap.
func TestTranscripts(t *testing.T) {
	for _, window := range []int{-1, 4 << 10, 1 << 20} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			r := newRig(t, keep(0), func(o *Options) { o.Window = window })
			testTranscripts(t, r)
		})
	}
}

func testTranscripts(t *testing.T, r *rig) {
	const publishers, each, readers = 4, 40, 6
	const total = publishers * each
	var racing sync.WaitGroup
	for p := range publishers {
		racing.Go(func() {
			for i := range each {
				n := p*each + i
				r.post(`{"events":[` + commit(n) + `]}`)
				r.post(`{"events":[` + chat(n) + `]}`)
			}
		})
	}
	transcripts := make(chan string, 2*readers)
	var reading sync.WaitGroup
	for i := range readers {
		reading.Go(func() { transcripts <- "SSE " + r.followSSE(total, i) })
		reading.Go(func() { transcripts <- "WS " + r.followWS(total, i) })
	}
	racing.Wait()
	reading.Wait()
	close(transcripts)
	whole := make(map[string]string) // by rail
	for got := range transcripts {
		rail, events, _ := strings.Cut(got, " ")
		if want := whole[rail]; want != "" && events != want {
			t.Errorf("%s readers saw different events:\n%s\n%s", rail, events, want)
		}
		whole[rail] = events
	}
	for rail, events := range whole {
		seen := strings.Fields(events)
		slices.Sort(seen)
		if len(slices.Compact(seen)) != total {
			t.Errorf("%s: %d different events of %d", rail, len(slices.Compact(seen)), total)
		}
	}
}

// followSSE reads total events from the oldest on, coming back a few times, and
// returns their data.
func (r *rig) followSSE(total, seed int) string {
	var events []twinrail.Event
	from := twinrail.CursorEarliest
	for len(events) < total {
		c := r.tail(canvasPath, "Last-Event-ID", from)
		c.open()
		for stay := 1 + (seed*31+len(events))%97; len(events) < total && stay > 0; {
			b := c.next()
			if b.event != string(twinrail.Commit) {
				continue
			}
			var e twinrail.Event
			unmarshal(r.t, []byte(b.data), &e)
			events = append(events, e)
			from = b.id
			stay--
		}
		_ = c.nc.Close()
	}
	checkChain(r.t, events, 0)
	return dataOf(events)
}

// followWS is followSSE on the other rail.
func (r *rig) followWS(total, seed int) string {
	var events []twinrail.Event
	from := twinrail.CursorEarliest
	for len(events) < total {
		p := r.peer()
		p.join("a", fmt.Sprintf(`,"after":%q`, from))
		for stay := 1 + (seed*31+len(events))%97; len(events) < total && stay > 0; {
			f := p.next()
			if f.Op != twinrail.OpEvent {
				continue
			}
			var e twinrail.Event
			unmarshal(r.t, f.Event, &e)
			events = append(events, e)
			from = e.Cursor
			stay--
		}
		_ = p.nc.Close()
	}
	checkChain(r.t, events, 0)
	return dataOf(events)
}
