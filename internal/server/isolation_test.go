package server

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// leakyJournal answers reads with entries of another stream.
type leakyJournal struct{ journal.Journal }

func (j leakyJournal) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	page, err := j.Journal.Read(ctx, r, after, max)
	page.Entries = slices.Clone(page.Entries)
	for i := range page.Entries {
		page.Entries[i].Owner = strings.Replace(page.Entries[i].Owner, "t_acme", "t_other", 1)
	}
	return page, err
}

// lockedBuffer is a buffer that many may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestForeignEntry has isolation fail below the server: nothing goes out, the
// connection ends, and somebody is told.
func TestForeignEntry(t *testing.T) {
	for _, window := range []int{-1, 1 << 20} {
		var log lockedBuffer
		r := newRig(t, func(o *Options) {
			o.Journal, o.Window = leakyJournal{journal.NewMemory(journal.MemoryOptions{})}, window
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		c, p := r.tail(canvasPath), r.peer()
		c.open()
		c.toLive()
		p.live("a")
		r.commits(0, 1)
		r.chats(0, 1)
		var end twinrail.End
		unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end)
		if end.Code != twinrail.CodeInternal {
			t.Errorf("end %+v", end)
		}
		c.ends()
		p.fails(twinrail.CodeInternal, 1011)
		problemOf(t, r.get(historyPath), twinrail.CodeInternal)
		if n := r.metric("twinrail_isolation_violations_total"); n != 3 {
			t.Errorf("%v violations counted, want 3", n)
		}
		if n := strings.Count(log.String(), "isolation violated"); n != 3 {
			t.Errorf("%d violations logged:\n%s", n, log.String())
		}
		if n := r.metric(`twinrail_events_delivered_total{rail="sse"}`) + r.metric(`twinrail_events_delivered_total{rail="ws"}`); n != 0 {
			t.Errorf("%v events delivered", n)
		}
	}
}
