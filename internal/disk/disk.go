// Package disk is the journal on Pebble, the default: one database in one
// directory, every append synced before it is answered, many appends by one
// sync.
package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/twinrail/twinrail/internal/journal"
)

// Options is what a [Journal] is opened with. The zero value of a field means its
// default.
type Options struct {
	// Retention bounds each stream. Default none.
	Retention journal.Retention
	// Quota bounds each tenant in each env. Default none.
	Quota journal.Quota
	// DedupeWindow is how long after its time an event's ID is known. Default
	// and upper bound: as long as the event is retained.
	DedupeWindow time.Duration
	// SweepInterval is how often all streams are looked through for what is over
	// the bounds; those that are written to are trimmed as they grow. Default
	// 1 min; negative never.
	SweepInterval time.Duration
	// CacheBytes bounds the memory for blocks of the database, besides that for
	// two tables in memory of 64 MiB each. Default 64 MiB.
	CacheBytes int64
	// HotStreams bounds the streams whose ends are kept in memory, at about 300
	// bytes each and some 10 for each of their last 1,000 to 3,000 ids. Default
	// 16,384. Streams in use are over and above it.
	HotStreams int
	// FS is the file system that the directory is in. Default the machine's.
	FS vfs.FS
	// Logger takes what an operator should know. Default discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.SweepInterval == 0 {
		o.SweepInterval = time.Minute
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.HotStreams == 0 {
		o.HotStreams = 16384
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Journal is a [journal.Journal] in a directory.
//
// Two goroutines write the log (see committer), one decides what to trim (see
// trimmer), one writes the tables (see tables); readers take part in none. They
// end in Close.
type Journal struct {
	options Options
	log     [16]byte
	db      *pebble.DB
	failure *failure
	streams *streams
	commits *committer
	trims   *trimmer
	tables  *tables
	used    *usages
	notify  func(key string, last uint64)

	// use is held shared while db is used on behalf of a caller.
	use    sync.RWMutex
	closed bool // guarded by use
	quit   chan struct{}
}

var _ journal.Journal = (*Journal)(nil)

// Errors of [Open].
var (
	ErrLocked  = errors.New("disk: the directory is in use by another process")
	ErrForeign = errors.New("disk: the directory holds something else than a journal")
	ErrDamaged = errors.New("disk: the journal is damaged")
)

// Open opens the journal in dir, which it makes where there is none. The
// directory is the journal's alone: one with other things in it is ErrForeign,
// one that is open already ErrLocked, and one that cannot be understood
// ErrDamaged.
func Open(dir string, options Options) (*Journal, error) {
	options = options.withDefaults()
	failure := newFailure(options.Logger)
	db, err := openDB(dir, options, failure)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, dir)
	}
	log, err := identity(db)
	var used *usages
	if err == nil {
		used, err = loadUsages(db)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", errors.Join(err, db.Close()), dir)
	}
	j := &Journal{
		options: options,
		log:     log,
		db:      db,
		failure: failure,
		used:    used,
		quit:    make(chan struct{}),
	}
	j.streams = newStreams(options.HotStreams, j.load)
	j.commits = newCommitter(j)
	j.trims = newTrimmer(j)
	j.tables = newTables(j)
	go j.commits.write()
	go j.commits.finish()
	go j.trims.run()
	go j.tables.write()
	return j, nil
}

// identity returns the log's identity, which a new database is given. A database
// of the version before is upgraded: an older program, which would not count what
// it writes, then does not open it any more.
func identity(db *pebble.DB) (log [16]byte, err error) {
	value, err := get(db, identityKey)
	if err != nil {
		return log, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if value != nil {
		if len(value) != 1+len(log) || value[0] != layoutVersion && value[0] != withoutUsage {
			return log, fmt.Errorf("%w: the layout is not of this version", ErrForeign)
		}
		log = [16]byte(value[1:])
		if value[0] == withoutUsage {
			err = upgrade(db, identityValue(log))
		}
		return log, err
	}
	iter, err := db.NewIter(nil)
	if err != nil {
		return log, err
	}
	empty := !iter.First()
	if err := iter.Close(); err != nil {
		return log, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !empty {
		return log, fmt.Errorf("%w: the database has no identity", ErrForeign)
	}
	rand.Read(log[:])
	return log, db.Set(identityKey, identityValue(log), pebble.Sync)
}

func identityValue(log [16]byte) []byte { return append([]byte{layoutVersion}, log[:]...) }

// Notify implements [journal.Journal].
func (j *Journal) Notify(fn func(key string, last uint64)) { j.notify = fn }

// Err implements [journal.Journal].
func (j *Journal) Err() error {
	err := j.begin(context.Background())
	if err == nil {
		j.end()
	}
	return err
}

// begin is called before db is used on behalf of a caller; where it returns no
// error, end is called afterwards.
func (j *Journal) begin(ctx context.Context) error {
	j.use.RLock()
	err := ctx.Err()
	if err == nil && j.closed {
		err = journal.ErrClosed
	}
	if err == nil {
		err = j.failure.err()
	}
	if err != nil {
		j.use.RUnlock()
	}
	return err
}

func (j *Journal) end() { j.use.RUnlock() }

// Close implements [journal.Journal]. After a failed write the database is left
// as it is, for the next process to recover: what more could be written to it
// would rest on what may not be there.
func (j *Journal) Close() error {
	j.use.Lock()
	if j.closed {
		j.use.Unlock()
		return nil
	}
	j.closed = true
	close(j.quit)
	j.use.Unlock()

	// A writer that fails may do so within Pebble, with locks that the other one
	// then waits for without end: only the first of them is waited for.
	select {
	case <-j.commits.done:
	case <-j.tables.done:
	}
	if err := j.failure.err(); err != nil {
		return err
	}
	<-j.commits.done
	<-j.tables.done
	<-j.trims.done
	if err := j.failure.err(); err != nil {
		return err
	}
	return j.db.Close()
}
