package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// backlog compares the time to the first event, of a client that is one event
// behind, with a long log and a short one.
func backlog(args []string) error {
	var long, short, rounds int
	parse("backlog", args, func(fs *flag.FlagSet) {
		fs.IntVar(&long, "long", 1_000_000, "events of the long log")
		fs.IntVar(&short, "short", 1000, "events of the short log")
		fs.IntVar(&rounds, "rounds", 200, "connections to each, in turn; medians are printed")
	})
	logs := []struct {
		events int
		t      target
		cursor string
		took   []float64
	}{{events: long}, {events: short}}
	for i := range logs {
		l := &logs[i]
		dir, err := os.MkdirTemp("", "twinrail-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c, t, err := serve("-data", dir)
		if err != nil {
			return err
		}
		defer c.stop()
		answer, err := c.ask("fill commit s1 %d 200", l.events)
		if err != nil {
			return err
		}
		l.t, l.cursor = t, answer[0]
	}
	for range rounds {
		for i := range logs {
			took, err := logs[i].t.firstEvent(logs[i].cursor)
			if err != nil {
				return err
			}
			logs[i].took = append(logs[i].took, float64(took.Microseconds()))
		}
	}
	a, b := median(logs[0].took), median(logs[1].took)
	fmt.Printf("one event behind: %.0f us to the event with a log of %d, %.0f us with one of %d: ratio %.2f\n", a, long, b, short, a/b)
	return nil
}

// firstEvent connects, and returns how long it took until the one event after
// cursor was there.
func (t target) firstEvent(cursor string) (time.Duration, error) {
	started := time.Now()
	nc, br, err := t.dialSSE(cursor)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	for {
		line, err := br.ReadString('\n')
		switch {
		case err != nil:
			return 0, err
		case line == "event: commit\n":
			return time.Since(started), nil
		case line == "event: live\n", line == "event: reset\n":
			return 0, errors.New("the event that follows the cursor did not come")
		}
	}
}

// slow compares the server's memory for subscribers that have stopped reading,
// with a long backlog before them and a short one, and then reads the long one.
func slow(args []string) error {
	var n, long, short int
	parse("slow", args, func(fs *flag.FlagSet) {
		fs.IntVar(&n, "n", 200, "subscribers")
		fs.IntVar(&long, "long", 50_000, "events of the long backlog")
		fs.IntVar(&short, "short", 5_000, "events of the short backlog")
	})
	var each [2]float64
	for i, events := range []int{long, short} {
		bytes, err := stalled(n, events)
		if err != nil {
			return err
		}
		each[i] = bytes
	}
	fmt.Printf("%d subscribers that do not read: %.0f bytes each with a backlog of %d, %.0f with one of %d: ratio %.2f; both were then delivered whole\n",
		n, each[0], long, each[1], short, each[0]/each[1])
	return nil
}

func stalled(n, events int) (float64, error) {
	const size = 2000 // so that either backlog is more than the sockets' buffers hold
	dir, err := os.MkdirTemp("", "twinrail-bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	c, t, err := serve("-data", dir)
	if err != nil {
		return 0, err
	}
	defer c.stop()
	if _, err := c.ask("fill commit s1 %d %d", events, size); err != nil {
		return 0, err
	}
	// Once through, so that caches are as full as they get.
	if err := t.readBacklog(events); err != nil {
		return 0, err
	}
	before, err := c.number("memory")
	if err != nil {
		return 0, err
	}
	conns := make([]net.Conn, 0, n)
	defer func() { shut(conns) }()
	readers := make([]*bufio.Reader, n)
	for i := range n {
		nc, br, err := t.dialSSE(twinrail.CursorEarliest)
		if err != nil {
			return 0, err
		}
		conns, readers[i] = append(conns, nc), br
	}
	time.Sleep(2 * time.Second) // until every socket is full
	after, err := c.number("memory")
	if err != nil {
		return 0, err
	}
	return (after - before) / float64(n), countEvents(readers[n-1], events)
}

func (t target) readBacklog(events int) error {
	nc, br, err := t.dialSSE(twinrail.CursorEarliest)
	if err != nil {
		return err
	}
	defer nc.Close()
	return countEvents(br, events)
}

// countEvents reads to the end of the backlog, and fails unless it is whole and
// in order.
func countEvents(br *bufio.Reader, want int) error {
	for got := 0; ; {
		line, err := br.ReadString('\n')
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, "data: {\"v\":1"):
			got++
			if !strings.Contains(line[:min(len(line), 300)], fmt.Sprintf(`"seq":%d,`, got)) {
				return fmt.Errorf("event %d of the backlog is another one", got)
			}
		case line == "event: live\n":
			if got != want {
				return fmt.Errorf("%d of a backlog of %d came", got, want)
			}
			return nil
		}
	}
}
