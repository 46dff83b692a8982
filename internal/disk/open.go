package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openDB opens the database in a goroutine of its own, because
// [failure.Fatalf] may end it.
func openDB(dir string, options Options, f *failure) (*pebble.DB, error) {
	if err := checkForeign(dir, options.FS); err != nil {
		return nil, err
	}
	var db *pebble.DB
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		db, err = pebble.Open(dir, pebbleOptions(options, f))
	}()
	<-done
	if cause := f.err(); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, openError(err)
	}
	return db, nil
}

func openError(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// checkForeign refuses a directory without a database that holds anything but
// what a cut creation leaves behind.
func checkForeign(dir string, files vfs.FS) error {
	names, err := files.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	desc, err := pebble.Peek(dir, files)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if desc.Exists {
		return nil
	}
	for _, name := range names {
		if !leftover(name) {
			return fmt.Errorf("%w: %q", ErrForeign, name)
		}
	}
	return nil
}

func leftover(name string) bool {
	return name == "LOCK" || strings.HasPrefix(name, "marker.") || strings.HasPrefix(name, "MANIFEST-") ||
		strings.HasPrefix(name, "OPTIONS-") || strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".dbtmp")
}

const memTableSize = 64 << 20

func pebbleOptions(options Options, f *failure) *pebble.Options {
	o := &pebble.Options{
		FS:                 lockFS{options.FS},
		Logger:             f,
		FormatMajorVersion: pebble.FormatNewest,
		// Pebble takes the memory of memtables off its cache: without room for
		// them, no block would stay in it while there are writes.
		CacheSize: options.CacheBytes + 2*memTableSize,
		// A large memtable makes for few flushes, and L0 may grow while one is
		// compacted: what is written is not read again for a while.
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               256 << 20,
	}
	o.EventListener = &pebble.EventListener{DataCorruption: f.corrupted}
	// Nearly every ID that is looked up is new: the filters say so without a read.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	o.EnsureDefaults()
	return o
}

// lockFS says which error is that of a lock that is held.
type lockFS struct{ vfs.FS }

// Lock implements [vfs.FS].
func (l lockFS) Lock(name string) (io.Closer, error) {
	lock, err := l.FS.Lock(name)
	var path *fs.PathError // it could not even be made
	if err != nil && !errors.As(err, &path) {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return lock, err
}

// Unwrap implements [vfs.FS].
func (l lockFS) Unwrap() vfs.FS { return l.FS }
