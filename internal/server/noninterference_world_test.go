package server

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/journal"
)

const (
	niOrigin = "https://app.test"
	// niMark is in all that A says, and niCanary in all that B does.
	niMark, niCanary = "mark-of-a", "canary-of-b"
)

// niWorld is a server with two tenants, in a bubble.
type niWorld struct {
	t       *testing.T
	script  niScript
	started time.Time
	listen  *pipeListener
	issuer  *authtest.Issuer
	a, b    *niParty
	running sync.WaitGroup // B, and all that reads
}

// newNIWorld starts a server whose limits are so low that either tenant comes to
// them.
func newNIWorld(t *testing.T, s niScript) *niWorld {
	w := &niWorld{
		t: t, script: s, started: time.Now(), issuer: authtest.New(t),
		listen: &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})},
	}
	w.a = newNIParty(w, "t_acme", "dev", niMark)
	w.b = newNIParty(w, niFoes[s.foe].tenant, niFoes[s.foe].env, niCanary)
	events, tables := openNIJournal(t, s.disk)
	j := &niJournal{Journal: events}
	if s.slow {
		j.slow = journal.TenantKeyOf(w.b.tenant, w.b.env)
	}
	flags, err := feature.Open(tables("flag"), feature.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, w.issuer, peekWatcher{}, w.listen, w.listen.dial, func(o *Options) {
		o.Journal, o.AllowedOrigins = j, []string{niOrigin}
		o.Gate = w.issuer.Gate(auth.GateOptions{
			AllowedOrigins: []string{niOrigin}, Revocations: tables("revocation"), Cookies: tables("cookie"),
		})
		o.Sessions, o.Flags = tables("session"), flags
		o.Window, o.WindowBudget = niWindows[s.window], 8<<10
		o.MaxEvent, o.MaxFrame, o.MaxBody = 2<<10, 8<<10, 16<<10
		// What is used up comes back so slowly that the next slot finds it missing.
		o.MaxConnections, o.MaxMembers, o.MaxJoins, o.JoinRate = 6, 3, 6, 1
		o.PublishRate, o.PublishBytes, o.FrameRate = 1, 512, 10
	})
	dial := r.serve2()
	for p, speaks := range map[*niParty]bool{w.a: s.http2[0], w.b: s.http2[1]} {
		if speaks {
			p.transport = newNITransport(r, p, dial)
		}
	}
	if w.b.isPlatform() {
		// Its gestures flow by a default, which it has set before A does anything.
		w.b.do(niOp{}, "PUT", w.b.query(twinrail.PathFlags+"/gesture_fanout"), `{"value":true}`)
	}
	return w
}

// slots returns when each of A's ops may begin, and at the end when the last one
// is over.
func (w *niWorld) slots() []time.Time {
	at := []time.Time{w.started}
	for k, op := range w.script.whole() {
		at = append(at, at[k].Add(op.slot()))
	}
	return at
}

// leadA has A do all that it does, and returns what it received, one thing a line.
func (w *niWorld) leadA() (lines []string) {
	n := new(normalizer)
	at := w.slots()
	for k, op := range w.script.whole() {
		time.Sleep(time.Until(at[k].Add(residue(k))))
		w.a.act(op)
		time.Sleep(time.Until(at[k+1].Add(-50 * time.Millisecond)))
		synctest.Wait()
		for _, line := range w.a.received(k, op) {
			w.a.harvest(line)
			lines = append(lines, n.normalize(line))
		}
	}
	return lines
}

// leadB has B do all that it does: in the very moment of A's op, or later in that
// slot. Where it is late, as it must wait for its answers, the rest comes later.
func (w *niWorld) leadB() {
	for _, op := range niPrologue {
		w.b.act(op)
	}
	at := w.slots()
	for k, ops := range w.script.b {
		for i, op := range ops {
			then := at[k].Add(residue(k))
			if op.late {
				then = then.Add(time.Duration(i+1) * op.spread(at[k+1].Sub(at[k])))
			}
			time.Sleep(time.Until(then))
			w.b.act(op)
			for _, line := range w.b.received(k, op) {
				w.b.harvest(line)
			}
		}
	}
}

// close ends all connections, and returns what B received.
func (w *niWorld) close() []string {
	// B's last requests are answered or given up first.
	time.Sleep(2 * patience)
	w.a.close()
	w.b.close()
	w.running.Wait()
	return w.b.all()
}
