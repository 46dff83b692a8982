package disk

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Whatever is looked up when, and however much comes between a lookup and its
// use, an ID that the stream has is never excluded.
func TestExcludes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := make(map[idHash]uint64) // the seqs of all ids
		s := &stream{}
		next := 0
		put := func(n int) {
			for range n {
				id := hashID(fmt.Sprint(next))
				next++
				s.next.seq++
				s.remember(id)
				stored[id] = s.next.seq
			}
		}
		put(rapid.IntRange(0, 2*maxRecent).Draw(t, "before"))
		if rapid.Bool().Draw(t, "opened again") {
			from := s.next.seq - min(s.next.seq, unindexed)
			s.recent = newRecentIDs(from)
			for seq := from + 1; seq <= s.next.seq; seq++ {
				s.recent.add(hashID(fmt.Sprint(seq-1)), seq)
			}
			s.since = s.recent.since
		}
		for range rapid.IntRange(1, 6).Draw(t, "lookups") {
			put(rapid.IntRange(0, maxRecent).Draw(t, "between"))
			id := hashID(fmt.Sprint(rapid.IntRange(0, next+maxRecent).Draw(t, "id")))
			l := look(s, stored, id, rapid.Bool().Draw(t, "all"))
			put(rapid.SampledFrom([]int{0, 1, 100, maxRecent, 3 * maxRecent}).Draw(t, "meanwhile"))
			s.learn(&l)
			if _, ok := stored[id]; ok && !s.recent.has(id) && s.excludes(&l, 0) {
				t.Fatalf("an id of one of %d records is excluded", next)
			}
			if !s.recent.has(id) && l.found == nil && s.recent.since <= s.floor.seq && !s.excludes(&l, 0) {
				t.Fatal("recent has all ids, and yet a new one is not excluded")
			}
		}
	})
}

// look does what [Journal.lookUp] does, with the ids of all but the last records
// in the index.
func look(s *stream, stored map[idHash]uint64, id idHash, all bool) lookup {
	if s.since <= s.floor.seq {
		return lookup{}
	}
	inIndex := func(seq uint64) bool { return seq+unindexed <= s.next.seq }
	seq, known := stored[id]
	l := lookup{asOf: indexed(s.next.seq), found: []bool{known && inIndex(seq)}}
	if all {
		l.all = make(map[uint32]struct{})
		for id, seq := range stored {
			if inIndex(seq) {
				l.all[id.fingerprint()] = struct{}{}
			}
		}
	}
	return l
}

// A reader that a trim overtakes after it has looked where the stream begins is
// told of a gap, whether all was trimmed or only a part.
func TestReadOvertaken(t *testing.T) {
	s := journaltest.NewStream(t, "c1")
	j, err := Open("journal", Options{FS: vfs.NewMem(), Retention: journal.Retention{Age: time.Hour}, SweepInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	now := time.Now()
	add := func(id string, at time.Time) uint64 {
		r, err := j.Append(t.Context(), []journal.Record{s.RecordAt(at, id, "d")}, journal.Expect{})
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Seq
	}
	first := add("a", now.Add(-3*time.Hour))
	add("b", now.Add(-3*time.Hour))
	add("c", now.Add(-time.Minute))
	before := stale(t, j, s.Key())

	for _, at := range []time.Time{now, now.Add(time.Hour)} {
		if more, err := j.trims.trim(s.Key(), at); more || err != nil {
			t.Fatalf("trim: %v, %v", more, err)
		}
		for _, after := range []uint64{0, first} {
			if page, err := j.read(before, after, 1<<20); err != nil || !page.Gap || len(page.Entries) != 0 {
				t.Errorf("read after %d: %+v, %v; want a gap", after, page, err)
			}
		}
	}
	if floor, last := stale(t, j, s.Key()).bounds(); floor != last {
		t.Errorf("%d is left after %d", last.seq, floor.seq)
	}
}

// stale returns the stream as it is now, which will not know what comes.
func stale(t *testing.T, j *Journal, key string) *stream {
	t.Helper()
	s, err := j.streams.pin(key)
	if err != nil {
		t.Fatal(err)
	}
	defer j.streams.unpin(s)
	floor, last := s.bounds()
	return &stream{key: key, epoch: s.epoch, floor: floor, last: last}
}

// The streams in memory are bounded, and those in use are kept.
func TestHotStreams(t *testing.T) {
	loads := 0
	c := newStreams(3, func(*stream) error { loads++; return nil })
	pin := func(key string) *stream {
		s, err := c.pin(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	used := pin("used")
	c.unpin(pin("used")) // by somebody else
	for i := range 10 {
		c.unpin(pin(fmt.Sprint(i)))
	}
	if len(c.byKey) != 3 || c.idle.Len() != 2 {
		t.Errorf("%d streams are held, %d of them idle", len(c.byKey), c.idle.Len())
	}
	if pin("used") != used {
		t.Error("a stream in use was dropped")
	}
	loads = 0
	c.unpin(pin("9"))
	c.unpin(pin("8"))
	c.unpin(pin("7"))
	if loads != 1 {
		t.Errorf("%d of 9, 8 and 7 were loaded again, want 7 alone", loads)
	}
}
