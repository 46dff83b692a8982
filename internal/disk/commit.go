package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twinrail/twinrail/internal/journal"
)

const (
	maxQueue      = 1024    // appends that wait for the committer
	maxGroupBytes = 4 << 20 // of events in one group, and one batch more
)

// committer is the only writer of the database. One of its goroutines takes what
// is waiting, gives the records their places, and writes all of it as one batch;
// the other waits until the batch is synced, and only then lets readers and
// appenders know. While one group is synced the next is written.
type committer struct {
	j       *Journal
	appends chan *appending
	trims   chan *trimming
	written chan *group          // in their order
	buffers sync.Pool            // of *[]byte
	fresh   map[streamID]freshID // of the group that is written, empty in between
	done    chan struct{}        // closed once both goroutines have ended
}

func newCommitter(j *Journal) *committer {
	return &committer{
		j:       j,
		appends: make(chan *appending, maxQueue),
		trims:   make(chan *trimming),
		written: make(chan *group),
		fresh:   make(map[streamID]freshID),
		done:    make(chan struct{}),
	}
}

// appending is a call of Append on its way through the committer, which answers
// it by closing done.
type appending struct {
	stream *stream // pinned until done
	recs   []journal.Record
	expect journal.Expect
	ids    []idHash
	events [][]byte // the values to store; nil once they are in a batch
	buffer *[]byte  // what events are parts of
	size   int      // of events
	lookup lookup

	results []journal.Result
	err     error
	done    chan struct{}
}

// trimming moves a stream's floor; the committer answers it by closing done.
type trimming struct {
	stream *stream // pinned until done
	floor  place
	ids    []trimmedID // of the events up to floor, maybe but for those that a later one has
	asOf   uint64      // up to which seq the index was whole when that was looked at
	done   chan struct{}
}

type trimmedID struct {
	id  idHash
	seq uint64
}

// Append implements [journal.Journal].
func (j *Journal) Append(ctx context.Context, recs []journal.Record, expect journal.Expect) ([]journal.Result, error) {
	key, err := journal.Batch(recs)
	if err != nil {
		return nil, err
	}
	a := j.commits.newAppending(recs, expect)
	if err := j.enqueue(ctx, key, a); err != nil {
		return nil, err
	}
	select {
	case <-a.done:
		return a.results, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-j.commits.done:
	}
	select {
	case <-a.done: // just before the end
		return a.results, a.err
	default:
		return nil, j.ended()
	}
}

// newAppending does the part of the work that needs no place in the stream, so
// that the committer has less to do.
func (c *committer) newAppending(recs []journal.Record, expect journal.Expect) *appending {
	buffer, ok := c.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	a := &appending{
		buffer:  buffer,
		recs:    recs,
		expect:  expect,
		ids:     make([]idHash, len(recs)),
		events:  make([][]byte, len(recs)),
		results: make([]journal.Result, len(recs)),
		done:    make(chan struct{}),
	}
	for i := range recs {
		rec := &recs[i]
		a.ids[i] = hashID(rec.ID())
		start := len(*buffer)
		*buffer = appendEvent(*buffer, rec)
		a.events[i] = (*buffer)[start:]
		a.size += len(a.events[i])
	}
	return a
}

// maxBuffer is the largest buffer that is kept for the next append.
const maxBuffer = 64 << 10

// recycle is called when the batch has a copy of the events.
func (c *committer) recycle(a *appending) {
	buffer := a.buffer
	a.events, a.buffer = nil, nil
	if cap(*buffer) <= maxBuffer {
		*buffer = (*buffer)[:0]
		c.buffers.Put(buffer)
	}
}

func (j *Journal) enqueue(ctx context.Context, key string, a *appending) error {
	if err := j.begin(ctx); err != nil {
		return err
	}
	s, err := j.streams.pin(key)
	if err != nil {
		j.end()
		return err
	}
	a.stream = s
	if err = j.loadTail(s); err == nil {
		a.lookup, err = j.lookUp(s, a.ids)
	}
	j.end()
	if err != nil {
		j.streams.unpin(s)
		return err
	}
	select {
	case j.commits.appends <- a: // nearly always, and cheaper than the next
		return nil
	default:
	}
	select {
	case j.commits.appends <- a:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-j.quit:
		err = journal.ErrClosed
	case <-j.commits.done:
		err = j.ended()
	}
	j.streams.unpin(s)
	return err
}

// ended says why there is no committer any more.
func (j *Journal) ended() error {
	if err := j.failure.err(); err != nil {
		return err
	}
	return journal.ErrClosed
}

// write ends once the journal is closed and all that was accepted is written, or
// when a write has failed; Pebble tells that by an error, a panic, or the end of
// the goroutine (see failure).
func (c *committer) write() {
	orderly := false
	defer func() {
		if p := recover(); p != nil {
			c.j.failure.set(fmt.Errorf("panic in a write: %v", p))
		} else if !orderly {
			c.j.failure.set(errors.New("a write did not return"))
		}
		close(c.written)
	}()
	for {
		clear(c.fresh)
		g := newGroup(c.j, c.fresh)
		closing := c.collect(g)
		if err := g.write(); err != nil {
			c.j.failure.set(err)
		}
		c.written <- g
		if c.j.failure.err() != nil || closing && len(c.appends) == 0 {
			orderly = true
			return
		}
	}
}

// finish ends when write has. After a failure nothing is answered with success,
// not even what was written before it: which sync failed is not known here.
func (c *committer) finish() {
	defer close(c.done)
	for g := range c.written {
		if err := g.sync(); err != nil {
			c.j.failure.set(err)
		}
		if err := c.j.failure.err(); err != nil {
			g.fail(err)
			continue
		}
		g.publish()
	}
}

// collect waits for something to do and then takes all that is waiting, within
// the bounds of a group. It reports whether the journal is being closed.
func (c *committer) collect(g *group) (closing bool) {
	select {
	case a := <-c.appends:
		g.add(a)
	case t := <-c.trims:
		g.trims = append(g.trims, t)
	case <-c.j.quit:
		closing = true
	}
	for g.size < maxGroupBytes {
		select {
		case a := <-c.appends:
			g.add(a)
		case t := <-c.trims:
			g.trims = append(g.trims, t)
		default:
			return closing
		}
	}
	return closing
}
