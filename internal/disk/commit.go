package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

const (
	maxQueue      = 1024    // appends that wait for the committer
	maxGroupBytes = 4 << 20 // of events in one group, and one batch more
)

// committer is the only writer of the database. It takes what is waiting, gives
// the records their places, writes all of it as one batch, syncs once, and only
// then lets readers and appenders know.
type committer struct {
	j       *Journal
	appends chan *appending
	trims   chan *trimming
	done    chan struct{} // closed at its end
}

func newCommitter(j *Journal) *committer {
	return &committer{
		j:       j,
		appends: make(chan *appending, maxQueue),
		trims:   make(chan *trimming),
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
	events [][]byte // the values to store
	size   int      // of events

	results []journal.Result
	err     error
	done    chan struct{}
}

// trimming moves a stream's floor; the committer answers it by closing done.
type trimming struct {
	stream *stream // pinned until done
	floor  place
	ids    []trimmedID // of the events up to floor
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
	a := newAppending(recs, expect)
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
func newAppending(recs []journal.Record, expect journal.Expect) *appending {
	a := &appending{
		recs:    recs,
		expect:  expect,
		ids:     make([]idHash, len(recs)),
		events:  make([][]byte, len(recs)),
		results: make([]journal.Result, len(recs)),
		done:    make(chan struct{}),
	}
	for i := range recs {
		rec := &recs[i]
		a.ids[i] = hashID(rec.ID)
		a.events[i] = appendEvent(make([]byte, 0, rec.Size()+256), rec)
		a.size += len(a.events[i])
	}
	return a
}

func (j *Journal) enqueue(ctx context.Context, key string, a *appending) error {
	if err := j.begin(ctx); err != nil {
		return err
	}
	s, err := j.streams.pin(key)
	j.end()
	if err != nil {
		return err
	}
	a.stream = s
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

// run ends once the journal is closed and all that was accepted is durable, or
// when a write has failed; Pebble tells that by an error, a panic, or the end of
// the goroutine (see failure).
func (c *committer) run() {
	orderly := false
	defer func() {
		if p := recover(); p != nil {
			c.j.failure.set(fmt.Errorf("panic in a write: %v", p))
		} else if !orderly {
			c.j.failure.set(errors.New("a write did not return"))
		}
		close(c.done)
	}()
	for {
		g := newGroup(c.j)
		closing := c.collect(g)
		if err := g.commit(); err != nil {
			c.j.failure.set(err)
			g.fail(c.j.failure.err())
			orderly = true
			return
		}
		if closing && len(c.appends) == 0 {
			orderly = true
			return
		}
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

// group is what one batch and one sync make durable.
type group struct {
	j       *Journal
	batch   *pebble.Batch
	appends []*appending
	trims   []*trimming
	size    int
	fresh   map[streamID]known // what the batch adds to the index
	grown   map[*stream]struct{}
	key     []byte // scratch
}

type streamID struct {
	stream *stream
	id     idHash
}

// known is a record that the stream has already.
type known struct {
	result journal.Result
	digest [16]byte
}

func newGroup(j *Journal) *group {
	return &group{
		j:     j,
		batch: j.db.NewBatch(),
		fresh: make(map[streamID]known),
		grown: make(map[*stream]struct{}),
	}
}

func (g *group) add(a *appending) {
	g.appends = append(g.appends, a)
	g.size += a.size
}

// commit makes the group durable, then shows it to readers, then answers. An
// error is one of the store; those of single appends are in their answers.
func (g *group) commit() error {
	// Trims first: whether an index entry is still the trimmed event's is looked
	// up in the database, which does not show what this batch adds.
	for _, t := range g.trims {
		if err := g.trim(t); err != nil {
			return err
		}
	}
	for _, a := range g.appends {
		if a.err = g.append(a); a.err != nil {
			a.results = nil
		}
	}
	if !g.batch.Empty() {
		if err := g.j.db.ApplyNoSyncWait(g.batch, pebble.Sync); err != nil {
			return err
		}
		if err := g.batch.SyncWait(); err != nil {
			return err
		}
	}
	g.publish()
	return g.batch.Close()
}

func (g *group) publish() {
	for s := range g.grown {
		s.setLast(s.next)
		if g.j.notify != nil {
			g.j.notify(s.key, s.next.seq)
		}
		g.j.trims.grown(s)
	}
	for _, a := range g.appends {
		close(a.done)
		g.j.streams.unpin(a.stream)
	}
	for _, t := range g.trims {
		close(t.done)
		g.j.streams.unpin(t.stream)
	}
}

// fail answers after a failed write. The streams stay pinned: what they say of
// themselves is the truth, what the database shows may not be.
func (g *group) fail(err error) {
	for _, a := range g.appends {
		a.results, a.err = nil, err
		close(a.done)
	}
}

// append puts the records of a that are new into the batch. An error says why
// none is.
func (g *group) append(a *appending) error {
	fresh, err := g.resolve(a)
	if err != nil {
		return err
	}
	if last := a.stream.next.seq; fresh && a.expect.Set && a.expect.Seq != last {
		return &journal.SeqConflictError{Last: last}
	}
	for i := range a.recs {
		if j := a.earlier(i); j >= 0 {
			a.results[i] = a.results[j]
			a.results[i].Duplicate = true
		} else if !a.results[i].Duplicate {
			g.put(a, i)
		}
	}
	return nil
}

// resolve fills in the results of records that the stream has already, and
// reports whether there are others.
func (g *group) resolve(a *appending) (fresh bool, err error) {
	for i := range a.recs {
		digest := a.recs[i].Digest
		if j := a.earlier(i); j >= 0 {
			if a.recs[j].Digest != digest {
				return false, &journal.IDConflictError{Index: i}
			}
			continue
		}
		k, ok, err := g.known(a, i)
		switch {
		case err != nil:
			return false, err
		case !ok:
			fresh = true
		case k.digest != digest:
			return false, &journal.IDConflictError{Index: i}
		default:
			a.results[i] = k.result
			a.results[i].Duplicate = true
		}
	}
	return fresh, nil
}

// earlier returns the index of the record in a before i with the same ID, or -1.
func (a *appending) earlier(i int) int {
	for j := range i {
		if a.ids[j] == a.ids[i] {
			return j
		}
	}
	return -1
}

// known looks for the record that the i-th of a repeats.
func (g *group) known(a *appending, i int) (known, bool, error) {
	k, ok := g.fresh[streamID{a.stream, a.ids[i]}]
	if !ok {
		var err error
		if k, ok, err = g.stored(a.stream, a.ids[i]); err != nil || !ok {
			return known{}, false, err
		}
	}
	window := g.j.options.DedupeWindow
	return k, window == 0 || a.recs[i].Time.Sub(k.result.Time) <= window, nil
}

func (g *group) stored(s *stream, id idHash) (known, bool, error) {
	g.key = indexKey(g.key[:0], s.key, id)
	value, err := get(g.j.db, g.key)
	if err != nil || value == nil {
		return known{}, false, err
	}
	seq, err := parseSeq(value)
	if err != nil {
		return known{}, false, err
	}
	g.key = eventKey(g.key[:0], s.key, seq)
	if value, err = get(g.j.db, g.key); err != nil {
		return known{}, false, err
	}
	rec, at, err := parseEvent(value, seq)
	if err != nil {
		return known{}, false, err
	}
	return known{s.result(&rec, at), rec.Digest}, true, nil
}

// result says that rec stands at p.
func (s *stream) result(rec *journal.Record, p place) journal.Result {
	return journal.Result{Seq: p.seq, Prev: p.seq - 1, Cursor: s.cursor(p), Time: rec.Time}
}

// put gives the i-th record of a the next place in its stream. Adding to a batch
// does not fail.
func (g *group) put(a *appending, i int) {
	s, rec, event := a.stream, &a.recs[i], a.events[i]
	s.next = s.next.after(rec)
	setBytes(event, s.next.bytes)
	g.key = eventKey(g.key[:0], s.key, s.next.seq)
	g.batch.Set(g.key, event, nil)
	seq := binary.BigEndian.AppendUint64(nil, s.next.seq)
	g.key = indexKey(g.key[:0], s.key, a.ids[i])
	g.batch.Set(g.key, seq, nil)
	a.results[i] = s.result(rec, s.next)
	g.fresh[streamID{s, a.ids[i]}] = known{a.results[i], rec.Digest}
	g.grown[s] = struct{}{}
}

// trim puts into the batch that the events up to t.floor are gone. Readers may
// know of it before it is durable: what they then miss will be missing.
func (g *group) trim(t *trimming) error {
	s := t.stream
	from, _ := s.bounds()
	s.setFloor(t.floor)
	end := eventKey(nil, s.key, t.floor.seq+1)
	if err := g.batch.DeleteRange(eventKey(nil, s.key, from.seq+1), end, nil); err != nil {
		return err
	}
	for _, trimmed := range t.ids {
		if err := g.forget(s, trimmed); err != nil {
			return err
		}
	}
	return g.batch.Set(floorKey(nil, s.key), t.floor.appendBinary(nil), nil)
}

// forget deletes the index entry of a trimmed event, unless it has become that
// of a later one, which takes a dedupe window shorter than the retention.
func (g *group) forget(s *stream, trimmed trimmedID) error {
	g.key = indexKey(g.key[:0], s.key, trimmed.id)
	if g.j.options.DedupeWindow > 0 {
		value, err := get(g.j.db, g.key)
		if err != nil || value == nil {
			return err
		}
		if seq, err := parseSeq(value); err != nil || seq != trimmed.seq {
			return err
		}
	}
	return g.batch.Delete(g.key, nil)
}
