package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

var errSilent = errors.New("client: nothing was heard from the server for too long")

// watchdog cancels a connection's context when the client has waited in vain for
// a sign of life. It runs only while the client waits: a caller who takes long
// over an event does not make the server silent.
type watchdog struct {
	limit time.Duration
	timer *time.Timer
}

// newWatchdog returns a watchdog that is not running, and the context that it
// cancels, with errSilent as the cause.
func newWatchdog(ctx context.Context, limit time.Duration) (*watchdog, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("%w: %v", errSilent, limit))
	})
	w.timer.Stop()
	return w, ctx, func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
}

func (w *watchdog) start() { w.timer.Reset(w.limit) }
func (w *watchdog) stop()  { w.timer.Stop() }

// reader returns r with every single read watched.
func (w *watchdog) reader(r io.Reader) io.Reader { return watchedReader{r, w} }

type watchedReader struct {
	r io.Reader
	w *watchdog
}

func (r watchedReader) Read(p []byte) (int, error) {
	r.w.start()
	defer r.w.stop()
	return r.r.Read(p)
}
