// Package journaltest holds the suite that every journal passes, and a wrapper
// that makes a journal fail.
package journaltest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// Stream is a canvas stream with the rights to write and to read its commits.
type Stream struct {
	Writer auth.Writer
	Reader auth.Reader
}

// NewStream returns the stream of the canvas in t_acme.
func NewStream(t authtest.T, canvas string) Stream {
	t.Helper()
	return NewStreamIn(t, "t_acme", "dev", canvas)
}

// NewStreamIn returns the stream of the canvas that a tenant has in an env.
func NewStreamIn(t authtest.T, tenant, env, canvas string) Stream {
	t.Helper()
	return StreamAt(t, twinrail.Routing{
		TenantID: tenant, Env: env, WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: canvas, ActorID: "u_1",
	})
}

// StreamAt returns the canvas stream that the actor in r has at r.
func StreamAt(t authtest.T, r twinrail.Routing) Stream {
	t.Helper()
	issuer := authtest.New(t)
	return Stream{
		Writer: issuer.Writer(r, twinrail.Commit),
		Reader: issuer.Reader(r, twinrail.CanvasStream, twinrail.Commit),
	}
}

// Key returns the stream's home key.
func (s Stream) Key() string { return s.Reader.Key() }

// Record returns a commit with the id and, as its data, a string. Its time is
// now.
func (s Stream) Record(id, data string) journal.Record { return s.RecordAt(time.Now(), id, data) }

// RecordAt is [Stream.Record] with another time.
func (s Stream) RecordAt(at time.Time, id, data string) journal.Record {
	return journal.NewRecord(s.Writer, twinrail.Event{
		ID: id, Type: "test", Time: at, Data: json.RawMessage(strconv.Quote(data)),
	})
}
