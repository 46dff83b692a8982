package session

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/table"
)

// The rows of the table, each with rowVersion before its value:
//
//	s_...     a session: how often it has been claimed, as a uvarint
//	alive     when the server was last alive: Unix time in ms (8 bytes, big-endian)
const (
	rowVersion = 1
	aliveKey   = "alive"
)

// aliveEvery is how often the time is noted when the server was alive: how much
// longer than the window a session may wait after a crash.
const aliveEvery = 5 * time.Second

func formatUses(uses uint64) []byte {
	return binary.AppendUvarint([]byte{rowVersion}, uses)
}

func parseUses(b []byte) (uses uint64, ok bool) {
	if len(b) == 0 || b[0] != rowVersion {
		return 0, false
	}
	uses, n := binary.Uvarint(b[1:])
	return uses, n > 0 && n == len(b)-1
}

func formatAlive(t time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowVersion}, uint64(t.UnixMilli()))
}

func parseAlive(b []byte) (t time.Time, ok bool) {
	if len(b) != 9 || b[0] != rowVersion {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[1:]))), true
}

// stamp notes that the server is alive.
func (g *Registry) stamp(d table.Durability) error {
	return g.options.Table.Put(aliveKey, formatAlive(time.Now()), d)
}

// load reads the table. Rows that cannot be read are deleted with those of the
// sessions that are over: of what lasts minutes, a server of another version need
// not keep a new one from starting.
func (g *Registry) load() error {
	alive, found := time.Now(), make(map[string]uint64)
	var gone []string
	err := g.options.Table.Scan(func(key string, value []byte) error {
		uses, ok := parseUses(value)
		if at, isTime := parseAlive(value); key == aliveKey && isTime {
			alive = at
		} else if ok && strings.HasPrefix(key, idPrefix) {
			found[key] = uses
		} else {
			gone = append(gone, key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A clock that was put back makes nobody wait for longer than the window.
	left := g.options.Window - max(0, g.start.Sub(alive))
	for id, uses := range found {
		if left <= 0 {
			gone = append(gone, id)
			continue
		}
		s := &Session{g: g, id: id, uses: uses}
		g.sessions[id] = s
		g.wait(s, left, nil)
	}
	var errs []error
	for _, key := range gone {
		errs = append(errs, g.options.Table.Delete(key, table.Lazy))
	}
	return errors.Join(errs...)
}

// run ends sessions when their window does, deletes the rows of those that are
// over, and notes that the server is alive.
func (g *Registry) run() {
	defer close(g.done)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		select {
		case <-g.quit:
			g.deleteRows()
			return
		case <-g.over.C:
			for s := g.due(); s != nil; s = g.due() {
				g.options.OnOver(s)
			}
		case <-g.ended:
			g.deleteRows()
		case <-alive.C:
			// A table that fails says so to those who need an answer.
			_ = g.stamp(table.Lazy)
		}
	}
}

// due takes a session out whose window is over. Where there is none, it returns
// nil and sets the timer for the next.
func (g *Registry) due() *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, now := g.lost.front, g.since()
	if l == nil || l.until > now {
		g.over.Reset(g.lost.wait(now))
		return nil
	}
	g.found(l.session)
	g.drop(l.session)
	return l.session
}

func (g *Registry) deleteRows() {
	g.mu.Lock()
	rows := g.rows
	g.rows = nil
	g.mu.Unlock()
	for _, id := range rows {
		_ = g.options.Table.Delete(id, table.Lazy) // see drop
	}
}

// loss is the wait of a session.
type loss struct {
	session    *Session
	until      time.Duration   // since g.start, when the session is over
	whose      *auth.Principal // nil where that is not known, after a restart
	prev, next *loss
}

// list is a queue of waits that can be left anywhere. The zero list is empty.
// As all wait for the same time, the one at the front is over first.
type list struct{ front, back *loss }

func (l *list) add(w *loss) {
	w.prev, w.next = l.back, nil
	if l.back == nil {
		l.front = w
	} else {
		l.back.next = w
	}
	l.back = w
}

func (l *list) remove(w *loss) {
	if w.prev == nil {
		l.front = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.back = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil // or it would keep them in memory
}

// wait returns how long it is until the session at the front is over, or an hour
// where there is none.
func (l *list) wait(now time.Duration) time.Duration {
	if l.front == nil {
		return time.Hour
	}
	return l.front.until - now
}
