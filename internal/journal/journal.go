// Package journal is the contract of the durable log of streams, the record
// that it stores, and the implementation in memory.
package journal

import (
	"context"
	"errors"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// Journal keeps streams: ordered logs of records, each named by a home key.
// A stream exists once something was appended to it; before that it reads as
// empty. All methods may be called concurrently.
//
// Positions are seqs. They rise within a stream and need not be dense: nobody
// may compute one from another. Position 0 is before the first record.
//
// Every method returns ctx.Err() where ctx ends first. ErrClosed is returned
// after Close, and ErrUnavailable, for good, once the store has failed to make
// something durable: what is on disk then is known only after a restart.
type Journal interface {
	// Append stores recs, at least one and all of one stream, at its end in
	// their order: all or none. When it returns without an error they are
	// durable, and only then does any reader see them.
	//
	// A record whose ID the stream has seen within the dedupe window is not
	// stored again: its result is the first one's, marked Duplicate, where the
	// digests agree, and the whole batch fails with an *IDConflictError where
	// they differ. An ID that occurs twice within recs counts as seen at its
	// second occurrence.
	//
	// With Expect set, the batch fails with a *SeqConflictError unless the
	// stream's last seq is Expect.Seq; a batch of nothing but duplicates is
	// answered before that is looked at, so that a retry of a conditional
	// publish that went through gets its first result.
	//
	// Where the journal has a Quota, a batch that would take the tenant of its
	// stream over a bound fails as a whole, with a *QuotaError, and changes
	// nothing. That is decided in the order in which batches get their places, so
	// that appends at the same time do not add up to more than the bound. Of the
	// batch only that counts which would be stored: duplicates are answered as
	// ever, also over the bound. Expect is looked at before. What is trimmed is
	// free as soon as readers miss it; what the batch itself would have trimmed is
	// not yet.
	//
	// Where ctx ends while the batch is being made durable, Append returns
	// ctx.Err() at once, and whether the batch is stored is not known to the
	// caller; a retry with the same IDs finds out.
	Append(ctx context.Context, recs []Record, expect Expect) ([]Result, error)

	// Read returns records that follow position after, in order: at least one
	// if there is one, and then no more once the page holds max bytes. A page
	// with Gap set and no entries says that records after that position have
	// been trimmed, so that what follows it is not what comes next.
	//
	// It seeks: its cost depends on what it returns, not on the length of the
	// stream or on where in it the position lies. It never blocks on an append.
	Read(ctx context.Context, r auth.Reader, after uint64, max int) (Page, error)

	// Bounds returns where the stream begins and ends now. Of a stream without
	// records both are the same position; it is 0 in one that never had any.
	Bounds(ctx context.Context, r auth.Reader) (Bounds, error)

	// Seek returns the position that c names, provided that reading on from
	// there misses nothing. It fails with ErrExpired where something after c was
	// trimmed, and with ErrUnknown where c was not cut from this log of this
	// stream. A cursor to the last record stays valid when that record is
	// trimmed.
	Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error)

	// Notify has fn called with a stream's home key and its last seq after each
	// append to it, wherever that came from, once it is readable. Calls for one
	// stream may be merged or come out of order, and fn must not block. Notify is
	// called once, before the journal is used.
	Notify(fn func(key string, last uint64))

	// Err says why the journal cannot be used: ErrUnavailable once it has stopped,
	// whether or not a call has come upon that yet, ErrClosed after Close, else nil.
	// It does not wait for the store.
	Err() error

	// Close makes durable what was accepted, and ends. Calls under way finish
	// or fail with ErrClosed.
	Close() error
}

// Expect is a condition on a stream's last seq.
type Expect struct {
	Set bool
	Seq uint64
}

// Result says where a record stands.
type Result struct {
	Seq       uint64
	Prev      uint64 // the seq of the record before it, 0 for the first
	Cursor    twinrail.Cursor
	Time      time.Time
	Duplicate bool
}

// Entry is a stored event in its place.
type Entry struct {
	Stored
	Prev   uint64 // the seq of the record before it, trimmed or not; 0 for the first
	Cursor twinrail.Cursor
}

// Page is what a read returns.
type Page struct {
	Entries []Entry
	// More says that there were records after the last entry when it was read.
	More bool
	// Gap says that records right after the position asked for are gone; then
	// there are no entries.
	Gap bool
}

// Bounds is where a stream begins and ends.
type Bounds struct {
	// Oldest is the position before the oldest record that is retained.
	Oldest twinrail.Cursor
	// Head is the position of the last record.
	Head twinrail.Cursor
}

// Retention says how much of each stream is kept; what is over any of the bounds
// may be trimmed, oldest first, some time after. A zero bound is none.
type Retention struct {
	Count int64
	Age   time.Duration
	Bytes int64
}

// Over reports whether the oldest record of a stream may be trimmed: whether the
// stream, which holds count records of size bytes with it, is over a bound, or
// the record, which is from the time oldest, is too old.
func (r Retention) Over(count, size int64, oldest, now time.Time) bool {
	return r.Count > 0 && count > r.Count || r.Bytes > 0 && size > r.Bytes ||
		r.Age > 0 && now.Sub(oldest) > r.Age
}

// Errors of a Journal. The first two are about a cursor; ErrBatch and
// ErrUnauthorized are mistakes of the caller.
var (
	ErrExpired      = errors.New("journal: the cursor is older than what is retained")
	ErrUnknown      = errors.New("journal: the cursor is not of this log")
	ErrClosed       = errors.New("journal: closed")
	ErrUnavailable  = errors.New("journal: stopped after a failed write")
	ErrBatch        = errors.New("journal: a batch holds at least one record, all of one stream and on channels that are kept")
	ErrUnauthorized = errors.New("journal: the reader or the record came from no authorization")
)

// Batch returns the key of the stream that all of recs belong to, or ErrBatch, also
// where one of them is on a channel that is not kept; and ErrUnauthorized where one
// was not made by [NewRecord] of a Writer that came from an authorization.
func Batch(recs []Record) (key string, err error) {
	if len(recs) == 0 {
		return "", ErrBatch
	}
	for i := range recs {
		switch rec := &recs[i]; {
		case rec.Owner() == "":
			return "", ErrUnauthorized
		case rec.Owner() != recs[0].Owner(), !rec.Channel().Journaled():
			return "", ErrBatch
		}
	}
	return recs[0].Owner(), nil
}

// SeqConflictError says that a stream's last seq was not the expected one.
type SeqConflictError struct {
	Last uint64
}

func (e *SeqConflictError) Error() string { return "journal: the stream is not at the expected seq" }

// IDConflictError says that the ID of the record at Index was used before, with
// other content.
type IDConflictError struct {
	Index int
}

func (e *IDConflictError) Error() string { return "journal: the id was used for another event" }
