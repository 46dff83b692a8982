package disk

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// view calls fn with r's stream. What fn found counts only if no write had
// failed by its end: after that the database may show what is not durable.
func (j *Journal) view(ctx context.Context, r auth.Reader, fn func(*stream) error) error {
	if !r.Valid() {
		return journal.ErrUnauthorized
	}
	if err := j.begin(ctx); err != nil {
		return err
	}
	defer j.end()
	s, err := j.streams.pin(r.Key())
	if err != nil {
		return err
	}
	defer j.streams.unpin(s)
	if err := fn(s); err != nil {
		return err
	}
	return j.failure.err()
}

// Read implements [journal.Journal].
func (j *Journal) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	var page journal.Page
	err := j.view(ctx, r, func(s *stream) (err error) {
		page, err = j.read(s, after, max)
		return err
	})
	if err != nil {
		return journal.Page{}, err
	}
	return page, nil
}

func (j *Journal) read(s *stream, after uint64, max int) (page journal.Page, err error) {
	floor, last := s.bounds()
	switch {
	case after < floor.seq:
		return journal.Page{Gap: true}, nil
	case after >= last.seq:
		return journal.Page{}, nil
	}
	iter, err := j.db.NewIter(&pebble.IterOptions{
		LowerBound: eventKey(nil, s.key, after+1),
		UpperBound: eventKey(nil, s.key, last.seq+1),
	})
	if err != nil {
		return journal.Page{}, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	size := 0
	for ok := iter.First(); ok && (len(page.Entries) == 0 || size < max); ok = iter.Next() {
		e, err := s.entry(iter.Key(), iter.Value())
		if err != nil {
			return journal.Page{}, err
		}
		// Seqs are dense, so that a trim since bounds shows here.
		if len(page.Entries) == 0 && e.Prev != after {
			return journal.Page{Gap: true}, nil
		}
		page.Entries = append(page.Entries, e)
		size += e.Size()
	}
	if len(page.Entries) == 0 {
		return journal.Page{Gap: true}, nil // all of it was trimmed since bounds
	}
	page.More = page.Entries[len(page.Entries)-1].Cursor.Seq < last.seq
	return page, nil
}

func (s *stream) entry(key, value []byte) (journal.Entry, error) {
	_, seq := splitEventKey(key)
	rec, at, err := parseEvent(bytes.Clone(value), seq)
	if err != nil {
		return journal.Entry{}, err
	}
	return journal.Entry{Stored: rec, Prev: seq - 1, Cursor: s.cursor(at)}, nil
}

// Bounds implements [journal.Journal].
func (j *Journal) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	var b journal.Bounds
	err := j.view(ctx, r, func(s *stream) error {
		floor, last := s.bounds()
		b = journal.Bounds{Oldest: s.cursor(floor), Head: s.cursor(last)}
		return nil
	})
	if err != nil {
		return journal.Bounds{}, err
	}
	return b, nil
}

// Seek implements [journal.Journal].
func (j *Journal) Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error) {
	err := j.view(ctx, r, func(s *stream) error { return j.seek(s, c) })
	if err != nil {
		return 0, err
	}
	return c.Seq, nil
}

func (j *Journal) seek(s *stream, c twinrail.Cursor) error {
	_, last := s.bounds()
	if c.Epoch != s.epoch || c.Seq > last.seq {
		return journal.ErrUnknown
	}
	value, err := get(j.db, eventKey(nil, s.key, c.Seq))
	if err != nil {
		return err
	}
	// The floor is read after the event: one that is not there is not above it.
	floor, _ := s.bounds()
	at := last
	switch {
	case c.Seq < floor.seq:
		return journal.ErrExpired
	case c.Seq == floor.seq:
		at = floor
	case c.Seq < last.seq:
		if _, at, err = parseEvent(value, c.Seq); err != nil {
			return err
		}
	}
	if s.cursor(at) != c {
		return journal.ErrUnknown
	}
	return nil
}
