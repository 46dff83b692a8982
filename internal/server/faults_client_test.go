package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

// Of the model clients.
const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	// maxSilence is two heartbeats and a margin.
	maxSilence = 15 * time.Second * 9 / 4
)

// modelClient does what docs/protocol.md says that a client must do. Only its
// back-off is not random, so that what it comes to can be told in a table.
type modelClient struct {
	w      *faultWorld
	rail   twinrail.Rail
	actor  string
	net    *access
	renews bool // gets a new token when it is told that the old one is about to expire
	quit   chan struct{}

	pause gate   // shut while it is busy with something else, or its machine asleep
	goOn  func() // opens it; owned by the test

	// Owned by run.
	cursor      string
	resumeToken string // of the WS rail
	retry       time.Duration
	failures    int

	mu      sync.Mutex
	token   string
	seen    modelNotes
	current net.Conn
}

// modelNotes is what a client was told and did.
type modelNotes struct {
	told         []string // without what it is told when nothing is wrong
	opened       int      // connections that got as far as the stream
	returns      []comeback
	connectionID string
	tried        string // what one more attempt was answered after it had stopped
	stopped      bool
	frozen       bool  // nothing is added to told
	events       []int // the numbers of those that came
	lastSeq      uint64
	lastAt       time.Time // when the last event came
	resets       int
	head         int // the number of events that the last reset skipped to
	broken       error
}

// comeback is a return.
type comeback struct {
	at  time.Time
	how string
}

// verdict is what a client does about the end of a connection.
type verdict struct {
	action twinrail.Action
	floor  time.Duration // how long it stays away at least
}

var cameOff = verdict{action: twinrail.ActionResume}

// run follows the stream until it must stop, or is told to.
func (c *modelClient) run() {
	c.note(func(n *modelNotes) { n.stopped = false })
	for {
		v := c.connect()
		if v.action == twinrail.ActionStop || c.over() {
			break
		}
		if v.action == twinrail.ActionRefresh {
			c.signIn(c.w.mint(c.actor, 0))
		}
		if !c.wait(max(v.floor, c.retry, min(firstBackoff<<min(c.failures, 10), maxBackoff))) {
			break
		}
		c.failures++
	}
	c.note(func(n *modelNotes) { n.stopped = true })
}

func (c *modelClient) connect() verdict {
	nc, err := c.net.dial()
	if err != nil {
		return cameOff
	}
	defer func() { _ = nc.Close() }()
	c.mu.Lock()
	c.current = nc
	c.mu.Unlock()
	if c.rail == twinrail.RailSSE {
		return c.followSSE(nc)
	}
	return c.followWS(nc)
}

func (c *modelClient) over() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

func (c *modelClient) wait(d time.Duration) (goesOn bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		c.pause.pass()
		return !c.over()
	case <-c.quit:
		return false
	}
}

// hop has the client give up its connection, as when its machine changes the
// network.
func (c *modelClient) hop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.current.Close()
}

// busy has the client read nothing until free.
func (c *modelClient) busy() {
	c.goOn = c.pause.close()
	c.net.last().down.hold(true)
}

func (c *modelClient) free() {
	c.net.last().down.hold(false)
	c.goOn()
}

// sleep has the client's machine sleep until wake: to the server it is as if it
// was not there any more.
func (c *modelClient) sleep() {
	c.goOn = c.pause.close()
	c.net.unplug()
	c.net.last().swallow()
}

// wake has the client find that its connection is dead.
func (c *modelClient) wake() {
	c.net.plug()
	c.net.last().cut()
	synctest.Wait()
	c.goOn()
}

func (c *modelClient) signIn(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token
}

func (c *modelClient) credential() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

func (c *modelClient) note(f func(*modelNotes)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.seen)
}

func (c *modelClient) notes() modelNotes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *modelClient) hear(format string, args ...any) {
	c.note(func(n *modelNotes) {
		if !n.frozen {
			n.told = append(n.told, fmt.Sprintf(format, args...))
		}
	})
}

func (c *modelClient) failed(err error) {
	c.note(func(n *modelNotes) { n.broken = cmp.Or(n.broken, err) })
}

// opens notes that the stream has begun, and how it was come back to.
func (c *modelClient) opens(resumed bool, reason twinrail.Code, how string) {
	c.failures = 0
	c.note(func(n *modelNotes) {
		if n.opened++; n.opened == 1 {
			return
		}
		n.returns = append(n.returns, comeback{time.Now(), how})
		if resumed == (reason != "") {
			n.broken = cmp.Or(n.broken, fmt.Errorf("back by %s: resumed %t, reason %q", how, resumed, reason))
		}
	})
}

// read calls f, which reads from nc. It reports silence, unless the client was
// not listening.
func (c *modelClient) read(nc net.Conn, f func() error) error {
	for {
		_ = nc.SetReadDeadline(time.Now().Add(maxSilence))
		err := f()
		before := time.Now()
		c.pause.pass()
		if err == nil || !isTimeout(err) || time.Since(before) == 0 {
			return err
		}
	}
}

// lost notes how a connection ended about which nothing was said.
func (c *modelClient) lost(err error) verdict {
	switch {
	case c.over():
	case isTimeout(err):
		c.hear("silence")
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		// It closed the connection itself.
	default:
		c.hear("a cut")
	}
	return cameOff
}

// refused is what the client does about an answer that is no stream.
func (c *modelClient) refused(resp *http.Response) verdict {
	var p twinrail.Problem
	body, _ := io.ReadAll(resp.Body)
	said := fmt.Sprint(resp.StatusCode)
	if json.Unmarshal(body, &p) == nil {
		said += " `" + string(p.Code) + "`"
	}
	if c.notes().stopped {
		c.note(func(n *modelNotes) { n.tried = said })
	} else {
		c.hear("%s", said)
	}
	switch p.Retry {
	case twinrail.RetryRefresh:
		return verdict{action: twinrail.ActionRefresh}
	case twinrail.RetryBackoff:
		after, _ := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		return verdict{action: twinrail.ActionBackoff, floor: after}
	}
	return verdict{action: twinrail.ActionStop}
}

// take applies an event, and then keeps its cursor.
func (c *modelClient) take(raw []byte) {
	var e twinrail.Event
	var data struct{ N int }
	err := errors.Join(json.Unmarshal(raw, &e), json.Unmarshal(e.Data, &data))
	if err != nil {
		c.failed(err)
		return
	}
	c.cursor = e.Cursor
	c.note(func(n *modelNotes) {
		if *e.Prev != n.lastSeq && n.broken == nil {
			n.broken = fmt.Errorf("event %d has prev %d after seq %d", data.N, *e.Prev, n.lastSeq)
		}
		n.events, n.lastSeq, n.lastAt = append(n.events, data.N), e.Seq, time.Now()
	})
}

// skip is what a reset comes to: the state is fetched anew, as of head.
func (c *modelClient) skip(reason twinrail.Code, head string) {
	c.hear("`reset` `%s`", reason)
	c.cursor = head
	at, err := twinrail.ParseCursor(head)
	if err != nil {
		c.failed(err)
	}
	c.note(func(n *modelNotes) { n.resets, n.lastSeq, n.head = n.resets+1, at.Seq, int(at.Seq) })
}
