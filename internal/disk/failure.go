package disk

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

// failure is how Pebble speaks: what it logs, and the first failed write, after
// which the journal stops. A write is not tried again: after a failed fsync the
// kernel may have dropped the data and say next time that all is well.
//
// It is Pebble's logger, whose Fatalf must not return.
type failure struct {
	logger *slog.Logger
	cause  atomic.Pointer[error]
}

var _ pebble.Logger = (*failure)(nil)

func newFailure(logger *slog.Logger) *failure { return &failure{logger: logger} }

// err returns nil, or an error that is ErrUnavailable.
func (f *failure) err() error {
	if cause := f.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (f *failure) set(cause error) {
	err := fmt.Errorf("%w: %w", journal.ErrUnavailable, cause)
	if f.cause.CompareAndSwap(nil, &err) {
		f.logger.Error("the journal has stopped: a write failed; restart once the cause is removed", "err", cause)
	}
}

// Infof implements [pebble.Logger].
func (f *failure) Infof(format string, args ...any) {
	f.logger.Debug(fmt.Sprintf("pebble: "+format, args...))
}

// Errorf implements [pebble.Logger].
func (f *failure) Errorf(format string, args ...any) {
	f.logger.Error(fmt.Sprintf("pebble: "+format, args...))
}

// Fatalf implements [pebble.Logger]. It ends the goroutine that called it, not
// the process: the job that failed, a flush or a compaction, then never runs
// again, and what the caller had locked is unlocked.
func (f *failure) Fatalf(format string, args ...any) {
	f.set(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// corrupted is told by Pebble of a damaged file.
func (f *failure) corrupted(info pebble.DataCorruptionInfo) {
	f.set(fmt.Errorf("%w: %s", ErrDamaged, info.Path))
}
