package server

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
)

// faultWatcher is somebody else in the thread, with a good network: it sees who
// comes and goes, for as long as the server is there.
type faultWatcher struct {
	peer *peer
	done sync.WaitGroup

	mu   sync.Mutex
	seen []sighting
}

// sighting is that an actor came, or left.
type sighting struct {
	at    time.Time
	actor string
	what  string // join or leave
}

func (s sighting) String() string {
	return s.what + " at " + s.at.Format("04:05.000")
}

func newFaultWatcher(r *rig, token string) *faultWatcher {
	p := r.upgrade(wsPath, token)
	p.want(twinrail.OpWelcome)
	joined := p.join(modelSub, `,"channels":["presence"]`)
	_ = p.nc.SetDeadline(time.Time{})
	v := &faultWatcher{peer: p}
	v.note("join", joined.Members)
	v.done.Go(v.run)
	return v
}

func (v *faultWatcher) run() {
	for {
		f, err := readServerFrame(v.peer.br)
		if err != nil {
			return
		}
		var s twinrail.ServerFrame
		if json.Unmarshal(f.Payload, &s) != nil {
			continue // the close frame
		}
		if s.Op == twinrail.OpPing {
			_, _ = v.peer.nc.Write(text(`{"op":"pong"}`))
		}
		v.note("leave", s.Leave)
		v.note("join", s.Join)
	}
}

func (v *faultWatcher) note(what string, members []twinrail.PresenceMember) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range members {
		v.seen = append(v.seen, sighting{time.Now(), m.ActorID, what})
	}
}

// of returns what was seen of the actor from that moment on.
func (v *faultWatcher) of(actor string, from time.Time) (seen []sighting) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.seen {
		if s.actor == actor && !s.at.Before(from) {
			seen = append(seen, s)
		}
	}
	return seen
}

func (v *faultWatcher) close() {
	_ = v.peer.nc.Close()
	v.done.Wait()
}
