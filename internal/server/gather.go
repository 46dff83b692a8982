package server

import (
	"sync"
	"time"
)

// gatherTick is how fine the gatherer tells marks apart.
const gatherTick = time.Millisecond

// gatherer holds links until the mark at which they may write again. The marks
// are at most one gather interval away, so a short ring of slots does, and one
// goroutine while there is anything in it.
type gatherer struct {
	engine *engine

	mu    sync.Mutex
	slots [][]*link
	at    int // the slot that is due next
	held  int
	awake bool
}

func newGatherer(e *engine) *gatherer {
	n := max(int((e.gather+gatherTick-1)/gatherTick), 0)
	return &gatherer{engine: e, slots: make([][]*link, n+2)}
}

// add has l run once wait, at most the gather interval, is over.
func (g *gatherer) add(l *link, wait time.Duration) {
	ticks := int((wait + gatherTick - 1) / gatherTick)
	g.mu.Lock()
	defer g.mu.Unlock()
	slot := (g.at + ticks) % len(g.slots)
	g.slots[slot] = append(g.slots[slot], l)
	g.held++
	if !g.awake {
		g.awake = true
		g.engine.spawn(g.turn)
	}
}

// turn goes round the ring until it is empty. Time that the scheduler lost is
// caught up with.
func (g *gatherer) turn() {
	started := time.Now()
	for done := 0; ; {
		time.Sleep(gatherTick - time.Since(started)%gatherTick)
		for passed := int(time.Since(started) / gatherTick); done < passed; done++ {
			due, empty := g.next()
			g.engine.run(due...)
			if empty {
				return
			}
		}
	}
}

// next empties the slot that is due, and goes on to the one after it.
func (g *gatherer) next() (due []*link, empty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due = g.slots[g.at]
	g.slots[g.at] = nil
	g.at = (g.at + 1) % len(g.slots)
	g.held -= len(due)
	g.awake = g.held > 0
	return due, !g.awake
}
