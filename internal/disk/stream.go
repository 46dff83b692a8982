package disk

import (
	"container/list"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// stream is the hot state of a stream: where it begins and ends.
type stream struct {
	key string

	// Owned by the streams that it is in.
	pins int
	idle *list.Element // nil while pinned

	// Fixed once loaded.
	epoch uint64
	found uint64 // the seq of the last record that was there

	// Owned by the committer once loaded.
	next   place // the last record that was given a place, durable or not
	recent recentIDs
	tail   []idHash // the ids of the last records: of those that the index has not, at least
	used   *usage   // its tenant's; nil until it is needed

	mu     sync.Mutex
	loaded bool
	tailed bool   // tail is loaded
	floor  place  // the last record that was trimmed
	last   place  // the last record that is durable
	since  uint64 // recent.since, for others than the committer
}

// bounds returns where the stream begins and, for readers, ends.
func (s *stream) bounds() (floor, last place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor, s.last
}

func (s *stream) setFloor(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor = p
}

func (s *stream) setLast(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = p
}

func (s *stream) cursor(p place) twinrail.Cursor {
	return twinrail.Cursor{Epoch: s.epoch, Seq: p.seq, Check: p.check}
}

// streams holds the hot states. One that is pinned stays: a stream that is being
// appended to must not be loaded again from a database that already shows what
// is not durable yet.
type streams struct {
	max  int
	load func(*stream) error

	mu    sync.Mutex
	byKey map[string]*stream
	idle  *list.List // of unpinned *stream, the one used last at the front
}

func newStreams(max int, load func(*stream) error) *streams {
	return &streams{max: max, load: load, byKey: make(map[string]*stream), idle: list.New()}
}

// pin returns the stream, loaded; the caller unpins it.
func (c *streams) pin(key string) (*stream, error) {
	s := c.get(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		if err := c.load(s); err != nil {
			c.unpin(s)
			return nil, err
		}
		s.loaded = true
	}
	return s, nil
}

func (c *streams) get(key string) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.byKey[key]
	if s == nil {
		s = &stream{key: key}
		c.byKey[key] = s
	}
	if s.idle != nil {
		c.idle.Remove(s.idle)
		s.idle = nil
	}
	s.pins++
	return s
}

func (c *streams) unpin(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.pins--
	if s.pins > 0 {
		return
	}
	s.idle = c.idle.PushFront(s)
	for c.idle.Len() > 0 && len(c.byKey) > c.max {
		coldest := c.idle.Remove(c.idle.Back()).(*stream)
		delete(c.byKey, coldest.key)
	}
}

// load reads where a cold stream begins and ends: its floor, and its last event
// by one seek. The caller holds s.mu.
func (j *Journal) load(s *stream) error {
	value, err := get(j.db, floorKey(nil, s.key))
	if err != nil {
		return err
	}
	var floor place
	if value != nil {
		if floor, err = parsePlace(value); err != nil {
			return err
		}
	}
	last, err := j.lastEvent(s.key)
	if err != nil {
		return err
	}
	if last.seq < floor.seq {
		last = floor // emptied
	}
	s.epoch = journal.StreamEpoch(j.log, s.key)
	s.floor, s.last, s.next = floor, last, last
	s.found, s.since = last.seq, last.seq
	s.recent = newRecentIDs(last.seq)
	return nil
}

// lastEvent returns the place of the last event in the database, the zero place
// where there is none.
func (j *Journal) lastEvent(stream string) (p place, err error) {
	iter, err := j.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(nil, stream, 0), UpperBound: eventsEnd(nil, stream)})
	if err != nil {
		return place{}, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	if !iter.Last() {
		return place{}, nil
	}
	_, seq := splitEventKey(iter.Key())
	_, p, err = parseEvent(iter.Value(), seq)
	return p, err
}
