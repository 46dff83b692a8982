package disk

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// maxRecent is how many ids of a stream's last records are kept in memory at
// least, if it was loaded that long ago, and a third of how many at most.
const maxRecent = 1024

// recentIDs stands for the ids of a stream's records after since, and spares most
// appends a look into the index: nearly all ids are new, and a look costs as much
// as all the rest. Of an ID it keeps a fingerprint, so that what it has may be
// another one; what it has not is certain.
type recentIDs struct {
	since    uint64
	newSince uint64
	old, new map[uint32]struct{} // up to newSince, and after it
}

func newRecentIDs(since uint64) recentIDs { return recentIDs{since: since, newSince: since} }

func (id idHash) fingerprint() uint32 { return binary.BigEndian.Uint32(id[:]) }

func (r *recentIDs) has(id idHash) bool {
	if _, ok := r.new[id.fingerprint()]; ok {
		return true
	}
	_, ok := r.old[id.fingerprint()]
	return ok
}

func (r *recentIDs) add(id idHash, seq uint64) {
	if len(r.new) >= maxRecent {
		r.old, r.since = r.new, r.newSince
		r.new, r.newSince = nil, seq-1
	}
	if r.new == nil {
		r.new = make(map[uint32]struct{})
	}
	r.new[id.fingerprint()] = struct{}{}
}

// extend adds the ids of all records up to r.since, so that r has all after
// since.
func (r *recentIDs) extend(ids map[uint32]struct{}, since uint64) {
	for id := range r.old {
		ids[id] = struct{}{}
	}
	r.old, r.since = ids, since
}

// loadTail reads the ids that are not in the index. It comes before the first
// append to a stream since that was loaded, so that nothing is added meanwhile.
func (j *Journal) loadTail(s *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tailed {
		return nil
	}
	from := max(s.floor.seq, indexed(s.last.seq))
	ids, err := j.idsAfter(s, from)
	if err != nil {
		return err
	}
	s.tail, s.tailed = ids, true
	s.recent = newRecentIDs(from)
	for i, id := range ids {
		s.recent.add(id, from+uint64(i)+1)
	}
	s.since = s.recent.since
	return nil
}

// idsAfter returns the ids of the durable records after seq.
func (j *Journal) idsAfter(s *stream, seq uint64) (ids []idHash, err error) {
	if seq == s.last.seq {
		return nil, nil
	}
	iter, err := j.db.NewIter(&pebble.IterOptions{
		LowerBound: eventKey(nil, s.key, seq+1), UpperBound: eventKey(nil, s.key, s.last.seq+1),
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	for ok := iter.First(); ok; ok = iter.Next() {
		seq++
		rec, _, err := parseEvent(iter.Value(), seq)
		if err != nil {
			return nil, err
		}
		ids = append(ids, hashID(rec.ID))
	}
	if err := iter.Error(); err != nil {
		return nil, err
	}
	if seq != s.last.seq {
		return nil, fmt.Errorf("%w: events are missing", ErrDamaged)
	}
	return ids, nil
}

// extendTail adds the ID of the record at s.next. It returns the ID, and the seq,
// of the record that is due for the index by that, or seq 0. Only the committer
// calls it, and inTail.
func (s *stream) extendTail(id idHash) (due idHash, seq uint64) {
	if len(s.tail) == 2*unindexed {
		s.tail = append(s.tail[:0], s.tail[unindexed:]...)
	}
	s.tail = append(s.tail, id)
	if len(s.tail) <= unindexed {
		return idHash{}, 0
	}
	return s.tail[len(s.tail)-1-unindexed], s.next.seq - unindexed
}

// inTail returns the seq of the last record of the ID in the tail that is not
// trimmed, or 0.
func (s *stream) inTail(id idHash) uint64 {
	for i := len(s.tail) - 1; i >= 0; i-- {
		if s.tail[i] == id {
			if seq := s.next.seq - uint64(len(s.tail)-1-i); seq > s.floor.seq {
				return seq
			}
			return 0
		}
	}
	return 0
}

// indexes reports whether the index entry of the record's ID is the record's, and
// not that of a later one.
func (j *Journal) indexes(s *stream, rec trimmedID) (bool, error) {
	value, err := get(j.db, indexKey(nil, s.key, rec.id))
	if err != nil || value == nil {
		return false, err
	}
	seq, err := parseSeq(value)
	return seq == rec.seq, err
}

// lookup is what an append found in the index before it was queued: that is done
// side by side, while the committer writes and syncs others. The zero value is
// for a stream whose recent ids were all.
type lookup struct {
	asOf  uint64              // up to which seq the index was whole before
	found []bool              // for each of the ids, whether it may be in the index
	all   map[uint32]struct{} // all that are in the index, or nil
}

// lookUp looks for the ids in the index. Of a stream with few records, as most
// are after a start, it reads all, so that the next appends need not look.
func (j *Journal) lookUp(s *stream, ids []idHash) (l lookup, err error) {
	s.mu.Lock()
	floor, last, since := s.floor.seq, s.last.seq, s.since
	s.mu.Unlock()
	if since <= floor {
		return lookup{}, nil
	}
	l.asOf = indexed(last)
	l.found = make([]bool, len(ids))
	if last-floor <= maxRecent {
		if l.all, err = j.allIDs(s); err != nil {
			return lookup{}, err
		}
		for i, id := range ids {
			_, l.found[i] = l.all[id.fingerprint()]
		}
		return l, nil
	}
	for i, id := range ids {
		value, err := get(j.db, indexKey(nil, s.key, id))
		if err != nil {
			return lookup{}, err
		}
		l.found[i] = value != nil
	}
	return l, nil
}

func (j *Journal) allIDs(s *stream) (all map[uint32]struct{}, err error) {
	first, last := idHash{}, idHash{}
	for i := range last {
		last[i] = 0xff
	}
	iter, err := j.db.NewIter(&pebble.IterOptions{
		LowerBound: indexKey(nil, s.key, first),
		UpperBound: append(indexKey(nil, s.key, last), 0),
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	all = make(map[uint32]struct{})
	for ok := iter.First(); ok; ok = iter.Next() {
		key := iter.Key()
		all[idHash(key[len(key)-len(idHash{}):]).fingerprint()] = struct{}{}
	}
	return all, iter.Error()
}

// learn takes over what a lookup found, where that makes recent complete. Only
// the committer calls it, and the next two.
func (s *stream) learn(l *lookup) {
	if l.all != nil && s.recent.since > s.floor.seq && s.recent.since <= l.asOf {
		s.recent.extend(l.all, s.floor.seq)
		s.tellSince()
	}
}

// remember adds the id of the record at s.next.
func (s *stream) remember(id idHash) {
	s.recent.add(id, s.next.seq)
	s.tellSince()
}

func (s *stream) tellSince() {
	if s.since != s.recent.since { // nobody else changes it
		s.mu.Lock()
		defer s.mu.Unlock()
		s.since = s.recent.since
	}
}

// excludes reports whether the i-th id of an append, which recent has not, is not
// in the index either: because recent has all that are, or because the index was
// looked at and recent has all since.
func (s *stream) excludes(l *lookup, i int) bool {
	return s.recent.since <= s.floor.seq ||
		l.found != nil && !l.found[i] && s.recent.since <= l.asOf
}
