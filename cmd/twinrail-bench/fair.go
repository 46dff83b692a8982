package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/twinrail/twinrail"
)

// What the quiet tenant does.
const (
	quietStreams  = 5
	quietEach     = 2 // subscribers on each rail of each stream
	quietInterval = time.Second / 50
	replayEvents  = 1000
	replayPause   = time.Second / 10
	// floodSettles is how long a flood goes on before it is measured: it begins with
	// all its connections at once, which holds up everyone for some 50 ms, once.
	floodSettles = time.Second
)

// fair measures what a quiet tenant sees of another one's flood on the same node.
// The same flood on another node of the same machine tells how much of it is that
// the processors are busy.
func fair(args []string) error {
	var each time.Duration
	var only string
	var limited bool
	var rounds int
	parse("fair", args, func(fs *flag.FlagSet) {
		fs.DurationVar(&each, "each", 4*time.Second, "how long in each round the quiet tenant is measured alone, under a flood, and beside one")
		fs.IntVar(&rounds, "rounds", 3, "of each flood; what they measured is taken together")
		fs.BoolVar(&limited, "limited", false, "hold each tenant to the limits that are the server's default")
		fs.StringVar(&only, "only", "", "the flood to measure; default each, and all at once")
	})
	var nodes [2]*node
	for i := range nodes {
		n, err := newNode(limited)
		if err != nil {
			return err
		}
		defer n.stop()
		nodes[i] = n
	}
	quiet, err := nodes[0].newQuiet()
	if err != nil {
		return err
	}
	defer quiet.stop()
	if _, err := quiet.measure(time.Second); err != nil { // to warm up
		return err
	}
	names := append(slices.Clone(floodNames), strings.Join(floodNames, ","))
	if only != "" {
		names = []string{only}
	}
	for _, name := range names {
		if err := quiet.compare(name, nodes, each, rounds); err != nil {
			return err
		}
	}
	return nil
}

// situations are what a round goes through, one after the other, so that what else
// the machine does falls on all of them alike.
var situations = [...]string{"alone", "same node", "other node"}

// compare measures the tenant alone, with the flood on its node, and with it on the
// other, in so many rounds, and prints each round and all of them together.
func (q *quiet) compare(name string, nodes [2]*node, each time.Duration, rounds int) error {
	fmt.Printf("%s\n", name)
	var all [len(situations)]measured
	for range rounds {
		var alone measured
		for i, where := range situations {
			var flood *child
			if i > 0 {
				flood = nodes[i-1].flood
			}
			seen, did, err := q.beside(flood, name, each)
			if err != nil {
				return err
			}
			if i == 0 {
				alone = seen
			}
			all[i] = all[i].and(seen)
			fmt.Printf("  %-11s %s%s%s\n", where, seen, seen.over(alone), did)
		}
	}
	for i, where := range situations {
		fmt.Printf("  all rounds, %-11s %s%s\n", where, all[i], all[i].over(all[0]))
	}
	return nil
}

// beside measures the tenant while flood, unless it is nil, does what name says. It
// returns what the flood did, too.
func (q *quiet) beside(flood *child, name string, each time.Duration) (seen measured, did string, err error) {
	if flood == nil {
		seen, err = q.measure(each)
		return seen, "", err
	}
	if _, err := flood.ask("start %s", name); err != nil {
		return seen, "", err
	}
	time.Sleep(floodSettles)
	if seen, err = q.measure(each); err != nil {
		return seen, "", err
	}
	words, err := flood.ask("stop")
	time.Sleep(500 * time.Millisecond) // until the flood has run off
	return seen, "; flood: " + strings.Join(words, " "), err
}

// node is a server on a disk of its own, and one that floods it.
type node struct {
	dir           string
	server, flood *child
	quiet         target
}

func newNode(limited bool) (n *node, err error) {
	n = &node{}
	if n.dir, err = os.MkdirTemp("", "twinrail-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.stop()
		}
	}()
	if n.server, err = start("child-serve", "-data", n.dir, "-unlimited="+strconv.FormatBool(!limited)); err != nil {
		return n, err
	}
	fields, err := n.server.line()
	if err != nil {
		return n, err
	}
	n.quiet = target{fields[0], fields[1]}
	other, err := n.server.ask("other")
	if err != nil {
		return n, err
	}
	if _, err = n.server.ask("fill commit s1 %d 200", replayEvents); err != nil {
		return n, err
	}
	if n.flood, err = start("child-flood"); err != nil {
		return n, err
	}
	_, err = n.flood.ask("target %s %s", n.quiet.addr, other[0])
	return n, err
}

func (n *node) stop() {
	for _, c := range []*child{n.flood, n.server} {
		if c != nil {
			c.stop()
		}
	}
	_ = os.RemoveAll(n.dir)
}

// measured is what the quiet tenant saw.
type measured struct{ delivery, replay latencies }

// and returns both together.
func (m measured) and(o measured) measured {
	return measured{slices.Concat(m.delivery, o.delivery), slices.Concat(m.replay, o.replay)}
}

func (m measured) String() string {
	return fmt.Sprintf("delivery %s, replay %s", m.delivery, m.replay)
}

// over says how many times as long as beside alone all took.
func (m measured) over(alone measured) string {
	ratio := func(a, b latencies, q int) float64 { return a.quantile(q) / b.quantile(q) }
	return fmt.Sprintf("; of alone: delivery p50 %.1f p99 %.1f, replay p50 %.1f p99 %.1f",
		ratio(m.delivery, alone.delivery, 50), ratio(m.delivery, alone.delivery, 99),
		ratio(m.replay, alone.replay, 50), ratio(m.replay, alone.replay, 99))
}

type latencies []time.Duration

// quantile returns the latency, in milliseconds, that so many percent do not exceed.
func (l latencies) quantile(percent int) float64 {
	if len(l) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(l))[len(l)*percent/100].Seconds() * 1000
}

func (l latencies) String() string {
	return fmt.Sprintf("p50 %.1f p99 %.1f ms (%d)", l.quantile(50), l.quantile(99), len(l))
}

// quiet is the quiet tenant's clients.
type quiet struct {
	t      target
	client *http.Client
	conns  []net.Conn
	heard  []net.Conn // of conns, those that the server wants to hear of

	mu        sync.Mutex
	delivered []time.Duration
}

func (n *node) newQuiet() (*quiet, error) {
	q := &quiet{t: n.quiet, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	for i := range quietStreams * quietEach {
		for _, rail := range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
			nc, br, err := n.quiet.dialIn(query, rail, quietStream(i), "")
			if err == nil {
				q.conns = append(q.conns, nc)
				err = untilLive(br)
			}
			if err != nil {
				q.stop()
				return nil, err
			}
			go q.read(br)
			if rail == twinrail.RailWS {
				q.heard = append(q.heard, nc)
			}
		}
	}
	return q, nil
}

func quietStream(i int) string { return "q" + strconv.Itoa(i%quietStreams) }

func (q *quiet) stop() { shut(q.conns) }

const quietMark = `"data":"sent `

// read ends with its connection.
func (q *quiet) read(br *bufio.Reader) {
	for {
		// Each event of either rail ends its "data" with a quote and a brace.
		text, err := br.ReadString('}')
		now := time.Now()
		if err != nil {
			return
		}
		if i := strings.Index(text, quietMark); i >= 0 {
			text = text[i+len(quietMark):]
			if sent, err := strconv.ParseInt(text[:strings.IndexByte(text, '"')], 10, 64); err == nil {
				q.mu.Lock()
				q.delivered = append(q.delivered, now.Sub(time.Unix(0, sent)))
				q.mu.Unlock()
			}
		}
	}
}

// measure has the tenant work for that long.
func (q *quiet) measure(long time.Duration) (m measured, err error) {
	for _, nc := range q.heard {
		if err := wsutil.WriteClientText(nc, []byte(`{"op":"ping"}`)); err != nil {
			return m, err
		}
	}
	started := time.Now()
	q.mu.Lock()
	q.delivered = nil
	q.mu.Unlock()
	var published error
	var wg sync.WaitGroup
	wg.Go(func() { published = q.publish(started, long) })
	var replays []time.Duration
	for i := 0; time.Since(started) < long && err == nil; i++ {
		time.Sleep(time.Until(started.Add(time.Duration(i) * replayPause)))
		var took time.Duration
		took, err = q.replay()
		replays = append(replays, took)
	}
	wg.Wait()
	want := int(long/quietInterval) * quietEach
	for range 100 {
		q.mu.Lock()
		m = measured{slices.Clone(q.delivered), replays}
		q.mu.Unlock()
		if len(m.delivery) >= want {
			return m, errors.Join(err, published)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return m, errors.Join(err, published, fmt.Errorf("%d of %d events were delivered", len(m.delivery), want))
}

// publish does not wait for one answer before the next publish.
func (q *quiet) publish(started time.Time, long time.Duration) error {
	count := int(long / quietInterval)
	errs := make([]error, count)
	var wg sync.WaitGroup
	for i := range count {
		time.Sleep(time.Until(started.Add(time.Duration(i) * quietInterval)))
		wg.Go(func() {
			rail := twinrail.RailSSE
			if i%2 == 1 {
				rail = twinrail.RailWS
			}
			event := event(rail, quietStream(i/2), fmt.Sprintf(`"sent %d"`, time.Now().UnixNano()))
			_, errs[i] = q.t.post(q.client, query, event)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// replay returns how long it takes to connect and to read a stream from its start.
func (q *quiet) replay() (time.Duration, error) {
	started := time.Now()
	nc, br, err := q.t.dial(twinrail.RailSSE, twinrail.CursorEarliest)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	err = countEvents(br, replayEvents)
	return time.Since(started), err
}
