package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// MemoryOptions is what a [Memory] is made of.
type MemoryOptions struct {
	// Retention bounds each stream; it is applied at each append to the stream.
	Retention Retention
	// Quota bounds each tenant in each env. Default none.
	Quota Quota
	// DedupeWindow is how long after its time an event's ID is known. Default
	// and upper bound: as long as the event is retained.
	DedupeWindow time.Duration
	// Stride is by how much seqs rise. Default 1; more shows up who takes seqs
	// to be dense.
	Stride uint64
}

// Memory is a [Journal] that lasts as long as the process: what it calls durable
// is in memory. Each one is a new log.
type Memory struct {
	options MemoryOptions
	log     [16]byte
	notify  func(key string, last uint64)

	mu      sync.Mutex
	closed  bool
	streams map[string]*memoryStream
	used    map[string]Usage // by TenantKey
}

var _ Journal = (*Memory)(nil)

type memoryStream struct {
	epoch   uint64
	entries []Entry
	bytes   int64             // of entries, in Record.Size
	ids     map[string]uint64 // the latest seq of each ID in entries
	floor   twinrail.Cursor   // the position before entries[0]
	head    twinrail.Cursor
}

// NewMemory returns an empty journal.
func NewMemory(options MemoryOptions) *Memory {
	options.Stride = cmp.Or(options.Stride, 1)
	m := &Memory{options: options, streams: make(map[string]*memoryStream), used: make(map[string]Usage)}
	rand.Read(m.log[:])
	return m
}

// Notify implements [Journal].
func (m *Memory) Notify(fn func(key string, last uint64)) { m.notify = fn }

// Err implements [Journal].
func (m *Memory) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.usable(context.Background())
}

// Close implements [Journal].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Append implements [Journal].
func (m *Memory) Append(ctx context.Context, recs []Record, expect Expect) ([]Result, error) {
	key, err := Batch(recs)
	if err != nil {
		return nil, err
	}
	results, last, err := m.append(ctx, key, recs, expect)
	if err == nil && last != 0 && m.notify != nil {
		m.notify(key, last)
	}
	return results, err
}

// append returns the stream's last seq, or 0 where nothing was stored.
func (m *Memory) append(ctx context.Context, key string, recs []Record, expect Expect) ([]Result, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, 0, err
	}
	s := m.stream(key)
	firsts, fresh, err := s.firsts(recs, m.options.DedupeWindow)
	if err != nil {
		return nil, 0, err
	}
	if fresh > 0 && expect.Set && expect.Seq != s.head.Seq {
		return nil, 0, &SeqConflictError{Last: s.head.Seq}
	}
	more := Usage{Bytes: fresh}
	if fresh > 0 && s.head.Seq == 0 {
		more.Streams = 1
	}
	if err := m.options.Quota.Check(m.used[TenantKey(key)], more); err != nil {
		return nil, 0, err
	}
	results := make([]Result, len(recs))
	for i := range recs {
		switch first := firsts[i]; {
		case first < 0:
			results[i] = s.push(recs[i].stored, m.options.Stride)
		case first < len(recs):
			results[i] = results[first]
			results[i].Duplicate = true
		default:
			results[i] = s.entries[first-len(recs)].result()
			results[i].Duplicate = true
		}
	}
	if fresh == 0 {
		return results, 0, nil
	}
	more.Bytes -= s.trim(m.options.Retention, time.Now())
	m.keep(key, s, more)
	return results, s.head.Seq, nil
}

func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// stream returns the stream, a new one where nothing was stored in it.
func (m *Memory) stream(key string) *memoryStream {
	s := m.streams[key]
	if s == nil {
		epoch := StreamEpoch(m.log, key)
		s = &memoryStream{epoch: epoch, ids: make(map[string]uint64)}
		s.floor.Epoch, s.head.Epoch = epoch, epoch
	}
	return s
}

// keep stores a stream that has become more, or by what was trimmed less.
func (m *Memory) keep(key string, s *memoryStream, more Usage) {
	m.streams[key] = s
	tenant := TenantKey(key)
	used := m.used[tenant]
	m.used[tenant] = Usage{used.Streams + more.Streams, used.Bytes + more.Bytes}
}

// Usage returns what the tenant has in the env of what a [Quota] bounds.
func (m *Memory) Usage(tenant, env string) (streams, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := m.used[TenantKeyOf(tenant, env)]
	return used.Streams, used.Bytes
}

// firsts says of each record what it repeats: -1 nothing, less than len(recs)
// the record at that index, else the entry at that index less len(recs). Fresh
// is the size of those that repeat nothing, 0 where there are none.
func (s *memoryStream) firsts(recs []Record, window time.Duration) (firsts []int, fresh int64, err error) {
	within := make(map[string]int, len(recs))
	firsts = make([]int, len(recs))
	for i := range recs {
		rec, first := &recs[i].stored, (*Stored)(nil)
		firsts[i] = -1
		if j, ok := within[rec.ID]; ok {
			firsts[i], first = j, &recs[j].stored
		} else if j, ok := s.known(rec, window); ok {
			firsts[i], first = len(recs)+j, &s.entries[j].Stored
		} else {
			fresh += int64(rec.Size())
		}
		if first != nil && first.Digest != rec.Digest {
			return nil, 0, &IDConflictError{Index: i}
		}
		within[rec.ID] = i
	}
	return firsts, fresh, nil
}

// known returns the index of the entry that rec repeats.
func (s *memoryStream) known(rec *Stored, window time.Duration) (int, bool) {
	seq, ok := s.ids[rec.ID]
	if !ok {
		return 0, false
	}
	i, _ := s.find(seq)
	return i, window == 0 || rec.Time.Sub(s.entries[i].Time) <= window
}

// find returns the index of the first entry at seq or later, and whether it is
// at seq.
func (s *memoryStream) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(s.entries, seq, func(e Entry, seq uint64) int {
		return cmp.Compare(e.Cursor.Seq, seq)
	})
}

func (s *memoryStream) push(rec Stored, stride uint64) Result {
	seq := s.head.Seq + stride
	e := Entry{
		Stored: rec,
		Prev:   s.head.Seq,
		Cursor: twinrail.Cursor{Epoch: s.epoch, Seq: seq, Check: rec.Check(seq)},
	}
	s.entries = append(s.entries, e)
	s.bytes += int64(rec.Size())
	s.ids[rec.ID] = seq
	s.head = e.Cursor
	return e.result()
}

func (e *Entry) result() Result {
	return Result{Seq: e.Cursor.Seq, Prev: e.Prev, Cursor: e.Cursor, Time: e.Time}
}

// trim returns the size of what it trimmed.
func (s *memoryStream) trim(keep Retention, now time.Time) int64 {
	n, before := 0, s.bytes
	for ; n < len(s.entries); n++ {
		e := &s.entries[n]
		if !keep.Over(int64(len(s.entries)-n), s.bytes, e.Time, now) {
			break
		}
		s.bytes -= int64(e.Size())
		s.floor = e.Cursor
		if s.ids[e.ID] == e.Cursor.Seq {
			delete(s.ids, e.ID)
		}
	}
	clear(s.entries[:n]) // the array behind the slice lives on
	s.entries = s.entries[n:]
	return before - s.bytes
}

// Read implements [Journal].
func (m *Memory) Read(ctx context.Context, r auth.Reader, after uint64, max int) (Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.read(ctx, r)
	switch {
	case err != nil || s == nil:
		return Page{}, err
	case after < s.floor.Seq:
		return Page{Gap: true}, nil
	}
	i, exact := s.find(after)
	if exact {
		i++
	}
	end, size := i, 0
	for ; end < len(s.entries) && (end == i || size < max); end++ {
		size += s.entries[end].Size()
	}
	return Page{Entries: slices.Clone(s.entries[i:end]), More: end < len(s.entries)}, nil
}

// read returns r's stream, nil where nothing was ever appended to it.
func (m *Memory) read(ctx context.Context, r auth.Reader) (*memoryStream, error) {
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	if !r.Valid() {
		return nil, ErrUnauthorized
	}
	return m.streams[r.Key()], nil
}

// Bounds implements [Journal].
func (m *Memory) Bounds(ctx context.Context, r auth.Reader) (Bounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.read(ctx, r)
	if err != nil {
		return Bounds{}, err
	}
	if s == nil {
		start := twinrail.Cursor{Epoch: StreamEpoch(m.log, r.Key())}
		return Bounds{Oldest: start, Head: start}, nil
	}
	return Bounds{Oldest: s.floor, Head: s.head}, nil
}

// Seek implements [Journal].
func (m *Memory) Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.read(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case s == nil:
		if c != (twinrail.Cursor{Epoch: StreamEpoch(m.log, r.Key())}) {
			return 0, ErrUnknown
		}
		return 0, nil
	case c.Epoch != s.epoch || c.Seq > s.head.Seq:
		return 0, ErrUnknown
	case c.Seq < s.floor.Seq:
		return 0, ErrExpired
	case c == s.floor:
		return c.Seq, nil
	}
	if i, ok := s.find(c.Seq); !ok || s.entries[i].Cursor != c {
		return 0, ErrUnknown
	}
	return c.Seq, nil
}
