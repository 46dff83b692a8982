package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// soak loads a server on the disk journal in all ways at once, for as long as it
// is told, and prints what the server takes meanwhile. It fails where that is not
// given back once the load has ended, and where a client saw an error.
func soak(args []string) error {
	var duration, every time.Duration
	var n int
	parse("soak", args, func(fs *flag.FlagSet) {
		fs.DurationVar(&duration, "for", 10*time.Minute, "how long the load lasts")
		fs.DurationVar(&every, "every", 10*time.Second, "how often figures are printed")
		fs.IntVar(&n, "n", 40, "followers of each rail")
	})
	if duration <= 0 || every <= 0 || n <= 0 {
		return errors.New("-for, -every and -n must be more than 0")
	}
	data, err := os.MkdirTemp("", "twinrail-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	c, t, err := serve("-data", data)
	if err != nil {
		return err
	}
	defer c.stop()
	s := &soaking{target: t, child: c, data: data, began: time.Now(), cuts: cutter{conns: make(map[*cutConn]struct{})}}
	if err := s.prepare(); err != nil {
		return err
	}
	before, err := s.rest("start")
	if err != nil {
		return err
	}
	if err := s.run(duration, every, n); err != nil {
		return err
	}
	if err := s.settle(before); err != nil {
		return err
	}
	if failed := s.failed.Load(); failed > 0 {
		return fmt.Errorf("%d errors, the first of them: %w", failed, *s.first.Load())
	}
	return nil
}

// soaking is a server under load.
type soaking struct {
	target target
	data   string // the journal's directory
	began  time.Time
	cuts   cutter

	asking sync.Mutex // guards child
	child  *child

	published, gestures, delivered, reconnects, failed atomic.Int64
	first                                              atomic.Pointer[error] // of those that failed
}

// fail counts err, unless it only says that ctx has ended.
func (s *soaking) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	s.failed.Add(1)
	s.first.CompareAndSwap(nil, &err)
}

func (s *soaking) ask(question string) ([]string, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.child.ask("%s", question)
}

// token returns a new token of an actor.
func (s *soaking) token(actor string) (string, error) {
	fields, err := s.ask("token " + actor)
	if err != nil {
		return "", err
	}
	return strings.Join(fields, ""), nil
}

// client returns a client of an actor, whose connections are those of transport.
func (s *soaking) client(actor string, transport *http.Transport) (*client.Client, error) {
	return client.New(client.Options{
		URL:         "http://" + s.target.addr,
		TokenSource: func(context.Context) (string, error) { return s.token(actor) },
		HTTPClient:  &http.Client{Transport: transport},
		Backoff:     client.Backoff{Base: 100 * time.Millisecond, Max: time.Second},
		OnRetry: func(cause error, _ time.Duration) {
			s.reconnects.Add(1)
			if chain := new(client.ChainError); errors.As(cause, &chain) {
				s.fail(ctx, cause)
			}
		},
	})
}

// prepare has gestures delivered.
func (s *soaking) prepare() error {
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	c, err := s.client("u_1", transport)
	if err != nil {
		return err
	}
	_, err = c.SetFlag(ctx, soakRouting(), "gesture_fanout", twinrail.FlagRequest{Value: json.RawMessage("true")})
	return err
}

// run loads the server for so long.
func (s *soaking) run(duration, every time.Duration, n int) error {
	loading, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	l, err := s.newLoad(n)
	if err != nil {
		return err
	}
	var done sync.WaitGroup
	done.Go(func() { l.run(loading) })
	tick := time.NewTicker(every)
	defer tick.Stop()
	for loading.Err() == nil {
		select {
		case <-loading.Done():
		case <-tick.C:
			_, err = s.print("load")
			if err != nil {
				cancel()
			}
		}
	}
	done.Wait()
	l.close()
	return err
}

// figures is what the server takes.
type figures struct {
	resident, heap int // bytes
	goroutines     int
	descriptors    int // but those of the journal's files
	files          int // of the journal
}

func (s *soaking) figures() (f figures, err error) {
	fields, err := s.ask("state")
	if err != nil {
		return f, err
	}
	if err := numbers(fields, &f.resident, &f.heap, &f.goroutines); err != nil {
		return f, err
	}
	// A journal that grows has more files open.
	dir := filepath.Join("/proc", strconv.Itoa(s.child.cmd.Process.Pid), "fd")
	open, err := os.ReadDir(dir)
	if err != nil {
		return f, err
	}
	for _, fd := range open {
		if file, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(file, s.data) {
			f.files++
		} else if err == nil {
			f.descriptors++
		}
	}
	return f, nil
}

func (s *soaking) print(phase string) (figures, error) {
	f, err := s.figures()
	if err != nil {
		return f, err
	}
	fmt.Printf("%6.0fs %-6s resident %5.1f MiB, heap %5.1f MiB, %5d goroutines, %5d descriptors and %2d files of the journal; "+
		"%d events published, %d gestures, %d delivered, %d reconnects, %d errors\n",
		time.Since(s.began).Seconds(), phase, mib(f.resident), mib(f.heap), f.goroutines, f.descriptors, f.files,
		s.published.Load(), s.gestures.Load(), s.delivered.Load(), s.reconnects.Load(), s.failed.Load())
	return f, nil
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// rest is print after the server has collected its garbage.
func (s *soaking) rest(phase string) (figures, error) {
	if _, err := s.ask("memory"); err != nil {
		return figures{}, err
	}
	return s.print(phase)
}

// How far the server may stay from where it began, and how long it takes: no
// longer than what waits for a client that is gone.
const (
	goroutineMargin  = 8
	descriptorMargin = 4
	settleTime       = time.Minute
)

// settle waits until the server has given back what it took.
func (s *soaking) settle(before figures) error {
	var after figures
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Second) {
		var err error
		if after, err = s.figures(); err != nil {
			return err
		}
		if returned(before, after) || time.Now().After(deadline) {
			break
		}
	}
	after, err := s.rest("end")
	if err == nil && !returned(before, after) {
		err = fmt.Errorf("%d goroutines and %d descriptors are left, of %d and %d before",
			after.goroutines, after.descriptors, before.goroutines, before.descriptors)
	}
	return err
}

func returned(before, after figures) bool {
	return after.goroutines <= before.goroutines+goroutineMargin && after.descriptors <= before.descriptors+descriptorMargin
}

// The streams of the load: those that are followed, each with a canvas and a
// thread, beside any number that are written to once.
const soakStreams = 12

// soakRouting is [query].
func soakRouting() twinrail.Routing {
	return twinrail.Routing{TenantID: "t_bench", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "a1"}
}

func hotID() string { return "s" + strconv.Itoa(rand.IntN(soakStreams)) }

// soakLoad is the clients.
type soakLoad struct {
	s *soaking
	n int
	// The connections of followers are cut now and then, those that publish are
	// not: what became of a publish would be open.
	steady, shaky *http.Transport
	publisher     *client.Client
	gesturers     []*client.Client
	followers     []*client.Client
}

func (s *soaking) newLoad(n int) (*soakLoad, error) {
	l := &soakLoad{s: s, n: n, steady: &http.Transport{MaxIdleConnsPerHost: 64}, shaky: &http.Transport{DialContext: s.cuts.dial}}
	var err error
	if l.publisher, err = s.client("u_1", l.steady); err != nil {
		return nil, err
	}
	for i := range 4 {
		g, err := s.client(fmt.Sprint("u_g", i), l.steady)
		if err != nil {
			return nil, err
		}
		f, err := s.client(fmt.Sprint("u_f", i), l.shaky)
		if err != nil {
			return nil, err
		}
		l.gesturers, l.followers = append(l.gesturers, g), append(l.followers, f)
	}
	return l, nil
}

func (l *soakLoad) close() {
	l.steady.CloseIdleConnections()
	l.shaky.CloseIdleConnections()
}

// run is the load, until ctx ends.
func (l *soakLoad) run(ctx context.Context) {
	var all sync.WaitGroup
	repeat := func(pause time.Duration, do func()) {
		all.Go(func() {
			for ctx.Err() == nil {
				do()
				sleep(ctx, rand.N(2*pause))
			}
		})
	}
	for range 8 {
		repeat(20*time.Millisecond, func() { l.publish(ctx) })
	}
	for _, g := range l.gesturers {
		repeat(50*time.Millisecond, func() { l.gesture(ctx, g) })
	}
	for i := range l.n {
		f := l.followers[i%len(l.followers)]
		slow := i%5 == 0
		repeat(200*time.Millisecond, func() { l.followCanvas(ctx, f, slow) })
		repeat(200*time.Millisecond, func() { l.followThread(ctx, f, slow) })
	}
	for i := range max(l.n/4, 1) {
		f := l.followers[i%len(l.followers)]
		repeat(200*time.Millisecond, func() { l.bePresent(ctx, f) })
	}
	for range 4 {
		repeat(time.Second, func() { l.stall(ctx) })
	}
	repeat(100*time.Millisecond, l.s.cuts.cut)
	all.Wait()
}

// publish stores some events in a stream, or one in a stream that nobody knows.
func (l *soakLoad) publish(ctx context.Context) {
	channel := []twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Chat, twinrail.Tool}[rand.IntN(4)]
	id, n := hotID(), 1+rand.IntN(5)
	if rand.IntN(4) == 0 {
		id, n = "cold"+strconv.FormatInt(l.s.published.Load(), 36), 1
	}
	routing := soakRouting()
	if channel.In(twinrail.CanvasStream) {
		routing.CanvasID = id
	} else {
		routing.ThreadID = id
	}
	events := make([]twinrail.NewEvent, n)
	for i := range events {
		data := fmt.Sprintf(`{"kind":"preview","text":%q}`, strings.Repeat("x", rand.IntN(3000)))
		events[i] = twinrail.NewEvent{Channel: channel, Type: "soak", Data: json.RawMessage(data)}
	}
	_, err := l.publisher.Publish(ctx, routing, twinrail.PublishRequest{Events: events})
	l.s.fail(ctx, err)
	if err == nil {
		l.s.published.Add(int64(n))
	}
}

func (l *soakLoad) gesture(ctx context.Context, from *client.Client) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	e := twinrail.NewEvent{Channel: twinrail.Gesture, Type: "pointer", Data: json.RawMessage(strconv.Itoa(rand.IntN(1000)))}
	_, err := from.Publish(ctx, routing, twinrail.PublishRequest{Events: []twinrail.NewEvent{e}})
	l.s.fail(ctx, err)
	if err == nil {
		l.s.gestures.Add(1)
	}
}

func (l *soakLoad) followCanvas(ctx context.Context, c *client.Client, slow bool) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	o := client.FollowOptions{Channels: []twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Gesture}}
	l.follow(ctx, slow, o, func(ctx context.Context, o client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowCanvas(ctx, routing, o)
	})
}

func (l *soakLoad) followThread(ctx context.Context, c *client.Client, slow bool) {
	routing := soakRouting()
	routing.ThreadID = hotID()
	o := client.FollowOptions{Presence: json.RawMessage(`{"at":"thread"}`)}
	l.follow(ctx, slow, o, func(ctx context.Context, o client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowThread(ctx, routing, o)
	})
}

func (l *soakLoad) bePresent(ctx context.Context, c *client.Client) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	l.follow(ctx, false, client.FollowOptions{}, func(ctx context.Context, _ client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowPresence(ctx, routing, json.RawMessage(strconv.Itoa(rand.IntN(1000))))
	})
}

// follow follows a stream three times: from its head, or now and then from its
// beginning, and from where it was when it had left.
func (l *soakLoad) follow(ctx context.Context, slow bool, o client.FollowOptions, start func(context.Context, client.FollowOptions) iter.Seq2[client.Item, error]) {
	if rand.IntN(20) == 0 {
		o.From = twinrail.CursorEarliest
	}
	var last uint64 // seq of the last event
	for range 3 {
		stay, leave := context.WithTimeout(ctx, 200*time.Millisecond+rand.N(10*time.Second))
		for item, err := range start(stay, o) {
			l.s.fail(stay, err)
			switch {
			case err != nil:
				continue // it was the last
			case item.Kind == client.KindReset:
				l.s.fail(stay, fmt.Errorf("a reset, for %s, where all is retained", item.Reset.Reason))
			case item.Kind == client.KindEvent:
				l.s.delivered.Add(1)
				l.s.fail(stay, follows(&last, item.Event))
				if slow {
					sleep(stay, 20*time.Millisecond)
				}
			}
			if item.Cursor != "" {
				o.From = item.Cursor
			}
		}
		leave()
		sleep(ctx, rand.N(time.Second))
	}
}

// follows checks that e, of a stream all of which is followed, comes right after
// the event at last.
func follows(last *uint64, e *twinrail.Event) error {
	before := *last
	if e.Seq == 0 { // a gesture
		return nil
	}
	*last = e.Seq
	if before != 0 && (e.Prev == nil || *e.Prev != before) {
		return fmt.Errorf("after seq %d came %d, which follows on another", before, e.Seq)
	}
	return nil
}

// stall asks for all there is, and reads nothing of it for a while.
func (l *soakLoad) stall(ctx context.Context) {
	token, err := l.s.token("u_slow")
	if err != nil {
		l.s.fail(ctx, err)
		return
	}
	conn, _, err := target{l.s.target.addr, token}.dial(twinrail.RailSSE, twinrail.CursorEarliest)
	if err != nil {
		l.s.fail(ctx, err)
		return
	}
	defer conn.Close()
	sleep(ctx, rand.N(20*time.Second))
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// cutter holds connections that can be cut.
type cutter struct {
	mu    sync.Mutex
	conns map[*cutConn]struct{}
}

type cutConn struct {
	net.Conn
	from *cutter
}

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	cc := &cutConn{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[cc] = struct{}{}
	return cc, nil
}

// cut ends one of the connections, whichever it is.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Conn.Close()
		return
	}
}

// Close implements [net.Conn].
func (c *cutConn) Close() error {
	c.from.mu.Lock()
	defer c.from.mu.Unlock()
	delete(c.from.conns, c)
	return c.Conn.Close()
}
