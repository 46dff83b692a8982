package disk

import (
	"bytes"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

// maxTrim bounds the events that one batch trims, so that appends in the same
// group hardly wait.
const maxTrim = 1024

// trimmer finds out what is over the bounds and has the committer delete it, a
// chunk at a time. Streams that grow tell it themselves; a sweep finds those
// that only age.
type trimmer struct {
	j    *Journal
	wake chan struct{} // holds one token
	done chan struct{} // closed at its end

	mu     sync.Mutex
	queue  []string            // keys of streams to trim
	failed []string            // of those that could not be; left until the next sweep
	queued map[string]struct{} // both
}

func newTrimmer(j *Journal) *trimmer {
	return &trimmer{
		j:      j,
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}),
		queued: make(map[string]struct{}),
	}
}

// grown is told of a stream after each append to it. The stream is trimmed once
// it is an eighth over a bound, so that not every append makes a trim.
func (t *trimmer) grown(s *stream) {
	keep := t.j.options.Retention
	if keep.Count == 0 && keep.Bytes == 0 {
		return
	}
	floor, last := s.bounds()
	count, size := int64(last.seq-floor.seq), int64(last.bytes-floor.bytes)
	keep.Count += keep.Count / 8
	keep.Bytes += keep.Bytes / 8
	keep.Age = 0 // needs a look at the oldest event: the sweep's part
	if keep.Over(count, size, time.Time{}, time.Time{}) {
		t.add(s.key)
	}
}

func (t *trimmer) add(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.queued[key]; ok {
		return
	}
	t.queued[key] = struct{}{}
	t.queue = append(t.queue, key)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *trimmer) take() (key string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		return "", false
	}
	key, t.queue = t.queue[0], t.queue[1:]
	delete(t.queued, key)
	return key, true
}

func (t *trimmer) run() {
	defer close(t.done)
	var sweep <-chan time.Time
	if t.j.options.SweepInterval > 0 && t.j.options.Retention != (journal.Retention{}) {
		ticker := time.NewTicker(t.j.options.SweepInterval)
		defer ticker.Stop()
		sweep = ticker.C
	}
	for {
		select {
		case <-t.j.quit:
			return
		case <-t.j.commits.done:
			return
		case <-t.wake:
		case <-sweep:
			if err := t.sweep(time.Now()); err != nil {
				t.j.options.Logger.Error("looking for what to trim failed", "err", err)
			}
		}
		t.work()
	}
}

// work trims the streams that are due, one chunk of each in turn. One that fails
// holds up no other, and is not tried again before the next sweep, however much it
// grows.
func (t *trimmer) work() {
	for {
		key, ok := t.take()
		if !ok || t.stopping() {
			return
		}
		more, err := t.trim(key, time.Now())
		switch {
		case err != nil:
			t.j.options.Logger.Error("trimming failed", "stream", key, "err", err)
			t.leave(key)
		case more:
			t.add(key)
		}
	}
}

func (t *trimmer) leave(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queued[key] = struct{}{}
	t.failed = append(t.failed, key)
}

// retry has what could not be trimmed be tried again once it is found due.
func (t *trimmer) retry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range t.failed {
		delete(t.queued, key)
	}
	t.failed = nil
}

func (t *trimmer) stopping() bool {
	select {
	case <-t.j.quit:
		return true
	case <-t.j.commits.done:
		return true
	default:
		return false
	}
}

// sweep looks at the oldest event of each stream, seeking from stream to stream,
// and makes those due that are over a bound.
func (t *trimmer) sweep(now time.Time) error {
	if t.stopping() {
		return nil
	}
	t.retry()
	return eachStream(t.j.db, func(stream string, has extent) bool {
		if t.j.options.Retention.Over(has.count, has.bytes, has.oldest, now) {
			t.add(stream)
		}
		return !t.stopping()
	})
}

// trim has one chunk of what is over the bounds deleted, and reports whether
// there may be more.
func (t *trimmer) trim(key string, now time.Time) (more bool, err error) {
	s, err := t.j.streams.pin(key)
	if err != nil {
		return false, err
	}
	job := &trimming{stream: s, done: make(chan struct{})}
	floor, _ := s.bounds()
	more, err = t.choose(job, now)
	if err != nil || job.floor == floor {
		t.j.streams.unpin(s)
		return false, err
	}
	select {
	case t.j.commits.trims <- job:
	case <-t.j.commits.done:
		return false, nil
	}
	select {
	case <-job.done:
	case <-t.j.commits.done:
	}
	return more, nil
}

// choose fills in the job: which events, oldest first, are over the bounds.
func (t *trimmer) choose(job *trimming, now time.Time) (more bool, err error) {
	s := job.stream
	floor, last := s.bounds()
	iter, err := t.j.db.NewIter(&pebble.IterOptions{
		LowerBound: eventKey(nil, s.key, floor.seq+1),
		UpperBound: eventKey(nil, s.key, last.seq+1),
	})
	if err != nil {
		return false, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	job.floor, job.asOf = floor, indexed(last.seq)
	for ok := iter.First(); ok; ok = iter.Next() {
		if job.floor.seq-floor.seq == maxTrim {
			return true, nil
		}
		_, seq := splitEventKey(iter.Key())
		rec, at, err := parseEvent(bytes.Clone(iter.Value()), seq)
		if err != nil {
			return false, err
		}
		count, size := int64(last.seq-job.floor.seq), int64(last.bytes-job.floor.bytes)
		if !t.j.options.Retention.Over(count, size, rec.Time, now) {
			return false, nil
		}
		job.floor = at
		gone, own := trimmedID{hashID(rec.ID), seq}, true
		if t.j.options.DedupeWindow == 0 && seq < s.found && seq <= job.asOf {
			// Here rather than in the committer, which all appends wait for; see forget.
			if own, err = t.j.indexes(s, gone); err != nil {
				return false, err
			}
		}
		if own {
			job.ids = append(job.ids, gone)
		}
	}
	return false, nil
}
