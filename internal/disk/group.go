package disk

import (
	"encoding/binary"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

// group is what one batch and one sync make durable.
type group struct {
	j       *Journal
	batch   *pebble.Batch
	appends []*appending
	trims   []*trimming
	size    int
	written bool
	fresh   map[streamID]freshID // what the batch adds to the index
	grown   map[*stream]place
	touched []*usage
	key     []byte         // scratch
	seq     [seqBytes]byte // scratch
}

type streamID struct {
	stream *stream
	id     idHash
}

// freshID is the i-th record of an append.
type freshID struct {
	a *appending
	i int
}

// known is a record that the stream has already.
type known struct {
	result journal.Result
	digest [16]byte
}

func newGroup(j *Journal, fresh map[streamID]freshID) *group {
	return &group{j: j, batch: j.db.NewBatch(), fresh: fresh}
}

func (g *group) add(a *appending) {
	g.appends = append(g.appends, a)
	g.size += a.size
}

// write gives the records their places and writes the batch. An error is one of
// the store; those of single appends are in their answers.
func (g *group) write() error {
	// Trims first: whether an index entry is still the trimmed event's is looked
	// up in the database, which does not show what this batch adds.
	for _, t := range g.trims {
		if err := g.trim(t); err != nil {
			return err
		}
	}
	g.grown = make(map[*stream]place, len(g.appends))
	for _, a := range g.appends {
		if a.err = g.append(a); a.err != nil {
			a.results = nil
		}
		g.j.commits.recycle(a)
	}
	if err := g.setUsages(); err != nil {
		return err
	}
	if g.batch.Empty() {
		return nil
	}
	g.written = true
	return g.j.db.ApplyNoSyncWait(g.batch, pebble.Sync)
}

// sync waits until the batch is durable.
func (g *group) sync() error {
	if !g.written {
		return nil
	}
	if err := g.batch.SyncWait(); err != nil {
		return err
	}
	return g.batch.Close()
}

// publish shows readers what is durable now, and then answers.
func (g *group) publish() {
	for s, last := range g.grown {
		s.setLast(last)
		if g.j.notify != nil {
			g.j.notify(s.key, last.seq)
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
	a.stream.learn(&a.lookup)
	fresh, err := g.resolve(a)
	if err != nil {
		return err
	}
	if last := a.stream.next.seq; fresh > 0 && a.expect.Set && a.expect.Seq != last {
		return &journal.SeqConflictError{Last: last}
	}
	if fresh > 0 {
		if err := g.admit(a.stream, fresh); err != nil {
			return err
		}
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
// returns the size of the others, 0 where there are none.
func (g *group) resolve(a *appending) (fresh int64, err error) {
	for i := range a.recs {
		digest := a.recs[i].Digest()
		if j := a.earlier(i); j >= 0 {
			if a.recs[j].Digest() != digest {
				return 0, &journal.IDConflictError{Index: i}
			}
			continue
		}
		k, ok, err := g.known(a, i)
		switch {
		case err != nil:
			return 0, err
		case !ok:
			fresh += int64(a.recs[i].Size())
		case k.digest != digest:
			return 0, &journal.IDConflictError{Index: i}
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
func (g *group) known(a *appending, i int) (k known, ok bool, err error) {
	s, id := a.stream, a.ids[i]
	if f, fresh := g.fresh[streamID{s, id}]; fresh {
		k, ok = known{f.a.results[f.i], f.a.recs[f.i].Digest()}, true
	} else if s.recent.has(id) || !s.excludes(&a.lookup, i) {
		k, ok, err = g.stored(s, id)
	}
	if err != nil || !ok {
		return known{}, false, err
	}
	window := g.j.options.DedupeWindow
	return k, window == 0 || a.recs[i].Time().Sub(k.result.Time) <= window, nil
}

func (g *group) stored(s *stream, id idHash) (known, bool, error) {
	seq, err := g.find(s, id)
	if err != nil || seq == 0 {
		return known{}, false, err
	}
	g.key = eventKey(g.key[:0], s.key, seq)
	value, err := get(g.j.db, g.key)
	if err != nil {
		return known{}, false, err
	}
	rec, at, err := parseEvent(value, seq)
	if err != nil {
		return known{}, false, err
	}
	return known{s.result(at, rec.Time), rec.Digest}, true, nil
}

// find returns the seq of the latest record in the database with the ID, or 0.
func (g *group) find(s *stream, id idHash) (uint64, error) {
	if seq := s.inTail(id); seq != 0 {
		return seq, nil
	}
	g.key = indexKey(g.key[:0], s.key, id)
	value, err := get(g.j.db, g.key)
	if err != nil || value == nil {
		return 0, err
	}
	return parseSeq(value)
}

// result says that a record of the time at stands at p.
func (s *stream) result(p place, at time.Time) journal.Result {
	return journal.Result{Seq: p.seq, Prev: p.seq - 1, Cursor: s.cursor(p), Time: at}
}

// put gives the i-th record of a the next place in its stream. Adding to a batch
// does not fail.
func (g *group) put(a *appending, i int) {
	s, rec, event := a.stream, &a.recs[i], a.events[i]
	s.next = s.next.after(rec)
	setBytes(event, s.next.bytes)
	g.key = eventKey(g.key[:0], s.key, s.next.seq)
	g.batch.Set(g.key, event, nil)
	if id, seq := s.extendTail(a.ids[i]); seq > s.floor.seq {
		binary.BigEndian.PutUint64(g.seq[:], seq)
		g.key = indexKey(g.key[:0], s.key, id)
		g.batch.Set(g.key, g.seq[:], nil)
	}
	a.results[i] = s.result(s.next, rec.Time())
	g.fresh[streamID{s, a.ids[i]}] = freshID{a, i}
	s.remember(a.ids[i])
	g.grown[s] = s.next
}

// trim puts into the batch that the events up to t.floor are gone. Readers may
// know of it before it is durable: what they then miss will be missing.
func (g *group) trim(t *trimming) error {
	s := t.stream
	from, _ := s.bounds()
	g.use(g.usage(s), journal.Usage{Bytes: -int64(t.floor.bytes - from.bytes)})
	s.setFloor(t.floor)
	end := eventKey(nil, s.key, t.floor.seq+1)
	if err := g.batch.DeleteRange(eventKey(nil, s.key, from.seq+1), end, nil); err != nil {
		return err
	}
	for _, trimmed := range t.ids {
		if err := g.forget(t, trimmed); err != nil {
			return err
		}
	}
	return g.batch.Set(floorKey(nil, s.key), t.floor.appendBinary(nil), nil)
}

// forget deletes the index entry of a trimmed event, unless it has become that
// of a later one. That takes a dedupe window: where there is none, only records
// that were found can have an ID again, of the time when there was one, and the
// trimmer has looked at all of them that were in the index by then.
func (g *group) forget(t *trimming, trimmed trimmedID) error {
	s := t.stream
	whole := indexed(s.next.seq)
	if trimmed.seq > whole {
		return nil // it has none
	}
	if g.j.options.DedupeWindow > 0 || t.asOf < min(whole, s.found) {
		if own, err := g.j.indexes(s, trimmed); err != nil || !own {
			return err
		}
	}
	g.key = indexKey(g.key[:0], s.key, trimmed.id)
	return g.batch.Delete(g.key, nil)
}
