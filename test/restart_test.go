package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// guest is one client, as light as can be, which does what it is told: it follows a
// stream, leaves when the server drains, and comes back when it was told to.
type guest struct {
	g       *gateway
	token   string
	routing twinrail.Routing
	connect func(*guest, context.Context) error // returns when the connection has ended

	// Owned by run.
	cursor  string
	resume  string // the token
	seen    []uint64
	told    time.Duration // when to come back
	toldAt  time.Time     // 0 before
	back    time.Time     // when it came
	retried int           // connections in vain after that
	err     error         // what must not happen

	lives atomic.Int32 // connections that have been live
	count atomic.Int64 // of seen
}

// saw takes an event. Of its text only the hash is kept.
func (c *guest) saw(cursor, text string) {
	c.cursor = cursor
	c.seen = append(c.seen, sumOf(cursor, text))
	c.count.Store(int64(len(c.seen)))
}

func sumOf(cursor, text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, cursor+" "+text) // a hash takes everything
	return h.Sum64()
}

// run follows until ctx is done.
func (c *guest) run(ctx context.Context) {
	for {
		err := c.connect(c, ctx)
		wait := 100*time.Millisecond + rand.N(200*time.Millisecond)
		switch {
		case ctx.Err() != nil:
			return
		case c.toldAt.IsZero():
			c.err = fmt.Errorf("cut off and not told when to come back: %w", err)
			return
		case c.back.IsZero():
			wait = time.Until(c.toldAt.Add(c.told))
		default:
			c.retried++
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if c.back.IsZero() {
			c.back = time.Now()
		}
	}
}

// sendAway takes when to come back.
func (c *guest) sendAway(told time.Duration) { c.told, c.toldAt = told, time.Now() }

// followRawSSE is one connection of the SSE rail, over a bare socket.
func followRawSSE(c *guest, ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", c.g.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	u, err := url.Parse(target{addr: c.g.addr, routing: c.routing}.sseURL())
	if err != nil {
		return err
	}
	req := &http.Request{Method: http.MethodGet, URL: u, Header: credentials(c.token)}
	if c.cursor != "" {
		req.Header.Set("Last-Event-ID", c.cursor)
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 2<<10)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return c.readSSE(bufio.NewReaderSize(resp.Body, 2<<10))
}

// readSSE reads blocks until the connection ends.
func (c *guest) readSSE(r *bufio.Reader) error {
	var id, event string
	var data []string
	var retry time.Duration
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = append(data, value)
		case "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			retry = time.Duration(ms) * time.Millisecond
		}
		if line != "\n" {
			continue
		}
		switch event {
		case string(twinrail.Commit), string(twinrail.Artifact):
			c.saw(id, strings.Join(data, "\n"))
		case twinrail.SSELive:
			c.lives.Add(1)
		case twinrail.SSEReset:
			c.err = errors.New("reset")
		case twinrail.SSEEnd:
			c.sendAway(retry)
		}
		if id != "" {
			c.cursor = id
		}
		id, event, data = "", "", data[:0]
	}
}

// followRawWS is one connection of the WS rail: it resumes where it can.
func followRawWS(c *guest, ctx context.Context) error {
	p, err := dialWS(ctx, c.g.addr, c.token)
	if err != nil {
		return err
	}
	defer p.CloseNow()
	join := func() error {
		after := c.cursor
		if after == "" {
			after = twinrail.CursorEarliest
		}
		return p.send(ctx, twinrail.ClientFrame{Op: twinrail.OpJoin, Sub: "s", Routing: &c.routing, After: after})
	}
	if c.resume == "" {
		err = join()
	} else {
		err = p.send(ctx, twinrail.ClientFrame{Op: twinrail.OpResume, ResumeToken: c.resume, Cursors: map[string]string{"s": c.cursor}})
	}
	for err == nil {
		var frame twinrail.ServerFrame
		if frame, err = p.receive(ctx); err != nil {
			return err
		}
		switch frame.Op {
		case twinrail.OpJoined, twinrail.OpResumed:
			c.resume = frame.ResumeToken
		case twinrail.OpEvent:
			c.saw(cursorOf(frame.Event), string(frame.Event))
		case twinrail.OpLive:
			c.lives.Add(1)
		case twinrail.OpReset:
			c.err = errors.New("reset")
		case twinrail.OpDrain:
			c.sendAway(time.Duration(frame.ReconnectAfterMS) * time.Millisecond)
		case twinrail.OpError:
			if strings.HasPrefix(string(frame.Code), "resume_") {
				c.resume = ""
				err = join()
			}
		}
	}
	return err
}

// findFiles fails where a process may not have as many files open as it takes.
func findFiles() (string, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	if limit.Max < 4096 {
		return "", errMissing("raise the limit of open files (ulimit -Hn) to 4096")
	}
	return "", nil
}

// TestRestartUnderLoad has 2,000 clients of both rails on a server to which is
// published all the time, and restarts that with SIGTERM. Each comes back when it
// was told to: not more in any second than the configured rate. Nothing is lost,
// and nothing comes twice.
func TestRestartUnderLoad(t *testing.T) {
	slow(t)
	require(t, findFiles)
	const each, rate = 1000, 400
	g := startGateway(t, "--drain-window", "2s", "--return-rate", strconv.Itoa(rate))
	publishers := map[twinrail.Rail]*publisher{
		twinrail.RailSSE: newPublisher(g, canvas("c1")), twinrail.RailWS: newPublisher(g, thread("th1")),
	}
	guests := map[twinrail.Rail][]*guest{}
	token := g.token(reader)
	for range each {
		guests[twinrail.RailSSE] = append(guests[twinrail.RailSSE], &guest{g: g, token: token, routing: canvas("c1"), connect: followRawSSE})
		guests[twinrail.RailWS] = append(guests[twinrail.RailWS], &guest{g: g, token: token, routing: thread("th1"), connect: followRawWS})
	}
	all := slices.Concat(guests[twinrail.RailSSE], guests[twinrail.RailWS])
	goHome := welcome(t, all)

	var stops []func()
	for _, p := range publishers {
		stops = append(stops, background(t, p.runSlowly))
	}
	eventually(t, "all have seen an event", func() bool { return !slices.ContainsFunc(all, func(c *guest) bool { return c.count.Load() == 0 }) })

	start := time.Now()
	g.terminate()
	select {
	case <-g.gone:
	case <-time.After(patience):
		t.Fatal("the server has not ended")
	}
	t.Logf("the server ended after %v", time.Since(start))
	g.start()
	t.Logf("the server is back after %v", time.Since(start))
	eventually(t, "all are back", func() bool { return present(all, 2) == len(all) })
	t.Logf("all were back after %v", time.Since(start))

	for _, stop := range stops {
		stop()
	}
	events := map[twinrail.Rail][]uint64{}
	for rail, p := range publishers {
		for _, e := range p.check(t) {
			text := string(e)
			if rail == twinrail.RailSSE {
				text = lineBreaks.Replace(text)
			}
			events[rail] = append(events[rail], sumOf(cursorOf(e), text))
		}
		eventually(t, "all have seen everything", func() bool {
			return !slices.ContainsFunc(guests[rail], func(c *guest) bool { return int(c.count.Load()) < len(events[rail]) })
		})
	}
	goHome()
	for rail, list := range guests {
		for i, c := range list {
			if c.err != nil || !slices.Equal(c.seen, events[rail]) {
				t.Fatalf("client %d of the %s rail saw %d events of %d, or not in order: %v", i, rail, len(c.seen), len(events[rail]), c.err)
			}
		}
	}
	checkReturns(t, all, rate)
	if resumed := g.metricSum(`twinrail_resumes_total{code=""}`); resumed != each {
		t.Errorf("%v sessions were resumed, and not %d", resumed, each)
	}
	t.Logf("%d and %d events, each once, for each client", len(events[twinrail.RailSSE]), len(events[twinrail.RailWS]))
}

var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// welcome connects all, some at a time, and waits until they are live. The function
// that it returns ends them and waits for it; so does the end of the test.
func welcome(t *testing.T, all []*guest) (goHome func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	goHome = func() { cancel(); running.Wait() }
	t.Cleanup(goHome)
	const atOnce = 50
	for i, c := range all {
		running.Go(func() { c.run(ctx) })
		if i%atOnce == atOnce-1 {
			eventually(t, "all are live", func() bool { return present(all[:i+1], 1) == i+1 })
		}
	}
	return goHome
}

// present counts who has been live on so many connections.
func present(all []*guest, connections int32) int {
	n := 0
	for _, c := range all {
		if c.lives.Load() >= connections {
			n++
		}
	}
	return n
}

// runSlowly publishes an event now and then until ctx is done. Each goes to a
// thousand clients.
func (p *publisher) runSlowly(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.publish(context.WithoutCancel(ctx), 1, 100); err != nil {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// checkReturns checks when clients were told to come back, and when they did: not
// more in any second than rate. What each is told counts from when it is told, so
// as long as it takes to tell all of them, so far may the moments of those told
// first and last lie over each other; and as late as the machine wakes one of them,
// so far may those that were to come before be with it. That the server spreads them
// exactly is TestReturnsAreSpread's to show, in fake time.
func checkReturns(t *testing.T, all []*guest, rate int) {
	t.Helper()
	var told, came []time.Duration
	first, last, retried := all[0].toldAt, all[0].toldAt, 0
	late := time.Duration(0)
	for _, c := range all {
		if c.toldAt.Before(first) {
			first = c.toldAt
		}
		if c.toldAt.After(last) {
			last = c.toldAt
		}
	}
	for _, c := range all {
		told = append(told, c.told)
		came = append(came, c.back.Sub(first))
		late = max(late, c.back.Sub(c.toldAt.Add(c.told)))
		retried += c.retried
	}
	slices.Sort(told)
	telling := last.Sub(first)
	t.Logf("told within %v to come back after %v to %v; at most %d in a second; %d came, up to %v late, with %d more attempts", telling, told[0], told[len(told)-1], busiest(told), busiest(came), late, retried)
	most := int(float64(rate) * (1.25 + telling.Seconds()))
	if n := busiest(told); n > most {
		t.Errorf("%d clients were told to come back within one second, with a rate of %d: want at most %d", n, rate, most)
	}
	most += int(float64(rate) * late.Seconds())
	if n := busiest(came); n > most {
		t.Errorf("%d clients came back within one second, with a rate of %d: want at most %d", n, rate, most)
	}
	if told[0] < 500*time.Millisecond {
		t.Errorf("a client was told to come back after %v, when no server can be there yet", told[0])
	}
}

// busiest returns the most moments within any second.
func busiest(moments []time.Duration) int {
	slices.Sort(moments)
	most, from := 0, 0
	for i := range moments {
		for moments[i]-moments[from] >= time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
