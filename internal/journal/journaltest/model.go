package journaltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// Log is where a journal keeps its events: what outlives a journal, and what its
// model test opens, closes and loses.
type Log interface {
	// Open opens the journal of the log.
	Open(Config) (Counted, error)
	// Durable is whether a journal that was closed is there when it is opened
	// again.
	Durable() bool
}

// Counted is a journal that tells what a tenant has in an env.
type Counted interface {
	journal.Journal
	Usage(tenant, env string) (streams, bytes int64)
}

// RunModel compares the journals of logs that newLog makes with a model, by
// random calls one after the other. What is over a bound must be trimmed by
// itself, and exactly: a journal may have a little more than its bounds only if
// a bound is above 4.
func RunModel(t *testing.T, newLog func() Log) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, newLog())
		defer m.close(t)
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append,
			"read":   m.read,
			"seek":   m.seek,
			"reopen": m.reopen,
			"":       m.bounds,
		})
	})
}

// model is what a journal should hold, kept as simply as can be.
type model struct {
	log     Log
	config  Config
	journal Counted
	start   time.Time
	streams []*modelStream
	cursors []twinrail.Cursor // all that there ever were
}

type modelStream struct {
	Stream
	entries []journal.Entry // all that there ever were
	floor   int             // how many of entries are trimmed
	epoch   uint64
}

func newModel(t *rapid.T, log Log) *model {
	m := &model{log: log, start: time.Now()}
	m.config.Retention.Count = rapid.SampledFrom([]int64{0, 1, 4}).Draw(t, "count")
	m.config.Retention.Age = rapid.SampledFrom([]time.Duration{0, 10 * time.Hour}).Draw(t, "age")
	m.config.DedupeWindow = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "window")
	m.config.Quota.Streams = rapid.SampledFrom([]int64{0, 0, 1}).Draw(t, "streams")
	m.config.Quota.Bytes = rapid.SampledFrom([]int64{0, 0, 700, 3000}).Draw(t, "bytes")
	for _, s := range []Stream{NewStream(t, "c0"), NewStream(t, "c1"), NewStreamIn(t, "t_other", "dev", "c0")} {
		m.streams = append(m.streams, &modelStream{Stream: s})
	}
	m.open(t)
	return m
}

func (m *model) open(t *rapid.T) {
	j, err := m.log.Open(m.config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.journal = j
	for _, s := range m.streams {
		b, err := j.Bounds(context.Background(), s.Reader)
		if err != nil {
			t.Fatalf("bounds: %v", err)
		}
		s.epoch = b.Head.Epoch
	}
}

func (m *model) close(t *rapid.T) {
	if err := m.journal.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func (m *model) reopen(t *rapid.T) {
	m.close(t)
	if !m.log.Durable() {
		for _, s := range m.streams {
			s.entries, s.floor = nil, 0
		}
	}
	m.open(t)
}

func (m *model) stream(t *rapid.T) *modelStream {
	return m.streams[rapid.IntRange(0, len(m.streams)-1).Draw(t, "stream")]
}

// place returns the cursor behind the first n of all entries.
func (s *modelStream) place(n int) twinrail.Cursor {
	if n == 0 {
		return twinrail.Cursor{Epoch: s.epoch}
	}
	return s.entries[n-1].Cursor
}

func (s *modelStream) head() twinrail.Cursor { return s.place(len(s.entries)) }

// first returns the entry that rec repeats: the last one with its ID that is
// retained, if that is not too long ago.
func (s *modelStream) first(rec *journal.Record, window time.Duration) *journal.Entry {
	for i := len(s.entries) - 1; i >= s.floor; i-- {
		if e := &s.entries[i]; e.ID == rec.ID() {
			if window > 0 && rec.Time().Sub(e.Time) > window {
				return nil
			}
			return e
		}
	}
	return nil
}

func (m *model) append(t *rapid.T) {
	s := m.stream(t)
	var recs []journal.Record
	for range rapid.IntRange(1, 5).Draw(t, "size") {
		age := rapid.SampledFrom([]time.Duration{0, -30 * time.Second, -5 * time.Minute, 20 * time.Hour}).Draw(t, "age")
		id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "id")
		recs = append(recs, s.RecordAt(m.start.Add(-age), id, rapid.SampledFrom([]string{"1", "1", "1", "2"}).Draw(t, "data")))
	}
	expect := journal.Expect{Set: rapid.Bool().Draw(t, "conditional"), Seq: s.head().Seq}
	if rapid.IntRange(0, 3).Draw(t, "miss") == 0 {
		expect.Seq++
	}
	got, err := m.journal.Append(context.Background(), recs, expect)
	want, wantErr := m.expected(s, recs, expect)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) || !sameConflict(err, wantErr) {
		t.Fatalf("append: %v, want %v", err, wantErr)
	}
	if err == nil {
		m.appended(t, s, recs, got, want)
		m.trim(t, s)
	}
}

func sameConflict(err, want error) bool {
	var gotSeq, wantSeq *journal.SeqConflictError
	if errors.As(want, &wantSeq) {
		return errors.As(err, &gotSeq) && *gotSeq == *wantSeq
	}
	var gotID, wantID *journal.IDConflictError
	if errors.As(want, &wantID) {
		return errors.As(err, &gotID) && *gotID == *wantID
	}
	var gotQuota, wantQuota *journal.QuotaError
	if errors.As(want, &wantQuota) {
		return errors.As(err, &gotQuota) && *gotQuota == *wantQuota
	}
	return err == nil
}

// usage returns what the stream's tenant has.
func (m *model) usage(of *modelStream) (used journal.Usage) {
	for _, s := range m.streams {
		if s.Reader.Home().TenantID != of.Reader.Home().TenantID {
			continue
		}
		if len(s.entries) > 0 {
			used.Streams++
		}
		for i := range s.entries[s.floor:] {
			used.Bytes += int64(s.entries[s.floor+i].Size())
		}
	}
	return used
}

// quota says what the quota has against the records that repeat none.
func (m *model) quota(s *modelStream, recs []journal.Record, want []int) error {
	used := m.usage(s)
	if quota := m.config.Quota.Streams; quota > 0 && len(s.entries) == 0 && used.Streams == quota {
		return &journal.QuotaError{What: "streams", Limit: quota}
	}
	for i := range recs {
		if want[i] == len(s.entries)+i {
			used.Bytes += int64(recs[i].Size())
		}
	}
	if quota := m.config.Quota.Bytes; quota > 0 && used.Bytes > quota {
		return &journal.QuotaError{What: "bytes", Limit: quota}
	}
	return nil
}

// expected says of each record which entry it repeats: an index in s.entries, or
// behind those the index of a record, its own where it repeats none.
func (m *model) expected(s *modelStream, recs []journal.Record, expect journal.Expect) ([]int, error) {
	want := make([]int, len(recs))
	fresh := false
	for i := range recs {
		want[i] = -1
		digest := recs[i].Digest()
		for k := range i {
			if recs[k].ID() == recs[i].ID() {
				want[i], digest = want[k], recs[k].Digest()
				break
			}
		}
		if first := s.first(&recs[i], m.config.DedupeWindow); want[i] < 0 && first != nil {
			digest = first.Digest
			for k := range s.entries {
				if s.entries[k].Cursor == first.Cursor {
					want[i] = k
				}
			}
		}
		if digest != recs[i].Digest() {
			return nil, &journal.IDConflictError{Index: i}
		}
		if want[i] < 0 {
			want[i], fresh = len(s.entries)+i, true
		}
	}
	if fresh && expect.Set && expect.Seq != s.head().Seq {
		return nil, &journal.SeqConflictError{Last: s.head().Seq}
	}
	if fresh {
		return want, m.quota(s, recs, want)
	}
	return want, nil
}

// appended checks the results and takes over what is new.
func (m *model) appended(t *rapid.T, s *modelStream, recs []journal.Record, got []journal.Result, want []int) {
	if len(got) != len(recs) {
		t.Fatalf("%d results for %d records", len(got), len(recs))
	}
	old := len(s.entries)
	for i, r := range got {
		var expected journal.Result
		switch k := want[i]; {
		case k < old:
			e := &s.entries[k]
			expected = journal.Result{Seq: e.Cursor.Seq, Prev: e.Prev, Cursor: e.Cursor, Time: e.Time, Duplicate: true}
		case k-old < i:
			expected = got[k-old]
			expected.Duplicate = true
		default:
			last := s.head()
			expected = journal.Result{Seq: r.Seq, Prev: last.Seq, Time: recs[i].Time()}
			expected.Cursor = twinrail.Cursor{Epoch: s.epoch, Seq: r.Seq, Check: recs[i].Check(r.Seq)}
			if r.Seq <= last.Seq {
				t.Fatalf("seq %d after %d", r.Seq, last.Seq)
			}
			s.entries = append(s.entries, journal.Entry{Stored: recs[i].Stored(), Prev: last.Seq, Cursor: expected.Cursor})
			m.cursors = append(m.cursors, expected.Cursor)
		}
		if r != expected {
			t.Fatalf("result %d is %+v, want %+v", i, r, expected)
		}
	}
}

// trim trims the model's stream, and waits until the journal has done the same.
func (m *model) trim(t *rapid.T, s *modelStream) {
	for s.floor < len(s.entries) {
		count := int64(len(s.entries) - s.floor)
		if !m.config.Retention.Over(count, 0, s.entries[s.floor].Time, m.start) {
			break
		}
		s.floor++
	}
	var oldest twinrail.Cursor
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		b, err := m.journal.Bounds(context.Background(), s.Reader)
		if err != nil {
			t.Fatalf("bounds: %v", err)
		}
		if oldest = b.Oldest; oldest == s.place(s.floor) {
			return
		}
	}
	t.Fatalf("the stream begins at %+v, not at %+v", oldest, s.place(s.floor))
}

func (m *model) bounds(t *rapid.T) {
	for _, s := range m.streams {
		b, err := m.journal.Bounds(context.Background(), s.Reader)
		if err != nil || b.Oldest != s.place(s.floor) || b.Head != s.head() {
			t.Fatalf("bounds %+v, %v; want from %+v to %+v", b, err, s.place(s.floor), s.head())
		}
		home, used := s.Reader.Home(), m.usage(s)
		if streams, bytes := m.journal.Usage(home.TenantID, home.Env); streams != used.Streams || bytes != used.Bytes {
			t.Fatalf("%s has %d streams of %d bytes, want %+v", home.TenantID, streams, bytes, used)
		}
	}
}

func (m *model) read(t *rapid.T) {
	s := m.stream(t)
	after := rapid.IntRange(0, len(s.entries)).Draw(t, "after")
	limit := rapid.SampledFrom([]int{0, 1, 600, 1 << 20}).Draw(t, "max")
	page, err := m.journal.Read(context.Background(), s.Reader, s.place(after).Seq, limit)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	want := journal.Page{Gap: after < s.floor}
	for i, size := after, 0; !want.Gap && i < len(s.entries) && (i == after || size < limit); i++ {
		want.Entries = append(want.Entries, s.entries[i])
		size += s.entries[i].Size()
	}
	want.More = !want.Gap && after+len(want.Entries) < len(s.entries)
	if page.Gap != want.Gap || page.More != want.More || len(page.Entries) != len(want.Entries) {
		t.Fatalf("read %d after %d of %d: %+v, want %+v", limit, after, len(s.entries), page, want)
	}
	for i := range page.Entries {
		got, want := page.Entries[i], want.Entries[i]
		if got.Cursor != want.Cursor || got.Prev != want.Prev || string(got.AppendBinary(nil)) != string(want.AppendBinary(nil)) {
			t.Fatalf("read %+v, want %+v", got, want)
		}
	}
}

// seek seeks any cursor that there ever was, of any stream and log, or one that
// differs a little.
func (m *model) seek(t *rapid.T) {
	s := m.stream(t)
	cursors := append([]twinrail.Cursor{{Epoch: s.epoch}, {}}, m.cursors...)
	c := rapid.SampledFrom(cursors).Draw(t, "cursor")
	switch rapid.SampledFrom([]string{"", "", "epoch", "seq", "check"}).Draw(t, "change") {
	case "epoch":
		c.Epoch ^= 1
	case "seq":
		c.Seq++
	case "check":
		c.Check ^= 1
	}
	seq, err := m.journal.Seek(context.Background(), s.Reader, c)
	want := s.seek(c)
	if !errors.Is(err, want) || err == nil && seq != c.Seq {
		t.Fatalf("seek of %+v: %d, %v; want %v", c, seq, err, want)
	}
}

func (s *modelStream) seek(c twinrail.Cursor) error {
	for n := range len(s.entries) + 1 {
		if n >= s.floor && s.place(n) == c {
			return nil
		}
	}
	if c.Epoch == s.epoch && c.Seq < s.place(s.floor).Seq {
		return journal.ErrExpired
	}
	return journal.ErrUnknown
}
