package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// modelThreads is how many threads the model has. A session joins each under one
// name: its number.
const modelThreads = 4

// sessionModel is a session, and what is true of it.
type sessionModel struct {
	t    *testing.T
	r    *rig
	rand *rand.Rand
	p    *peer // of the session's connection
	eve  *peer // who watches presence on all threads
	past []*peer

	threads [modelThreads]modelThread
	tokens  []modelToken // any of which resumes the session
	said    int          // the last state
	stored  int          // the last event
}

type modelThread struct {
	log    []string // data of what was published
	joined bool
	next   int    // of log, what the subscription gets next
	cursor string // before that
	state  string // what the session says of itself there; "" where not present, "-" for nothing
	seen   string // the same as eve was told
}

// modelToken is a resume token, and what it restores: of each thread whether it
// was joined, and present.
type modelToken struct {
	token           string
	joined, present [modelThreads]bool
}

func newSessionModel(t *testing.T, seed uint64) *sessionModel {
	m := &sessionModel{t: t, r: newBubbleRig(t), rand: rand.New(rand.NewPCG(seed, 0))}
	m.eve = m.r.actor("eve")
	for i := range modelThreads {
		m.eve.subscribe(fmt.Sprintf(`"sub":"%d","routing":{"thread_id":"th%d"},"channels":["presence"]`, i, i))
	}
	var hello twinrail.ServerFrame
	m.p, hello = m.r.greet(m.r.token)
	m.issued(hello.ResumeToken)
	return m
}

func (m *sessionModel) issued(token string) {
	now := modelToken{token: token}
	for i, th := range m.threads {
		now.joined[i], now.present[i] = th.joined, th.joined && th.state != ""
	}
	m.tokens = append(m.tokens, now)
}

// say returns another state.
func (m *sessionModel) say() string {
	m.said++
	return strconv.Itoa(m.said)
}

// step does one thing at random.
func (m *sessionModel) step() {
	i := m.rand.IntN(modelThreads)
	th := &m.threads[i]
	switch n := m.rand.IntN(12); {
	case n < 3:
		m.publish()
	case n < 6 && !th.joined:
		th.joined, th.next, th.state = true, len(th.log), ""
		more := ""
		if m.rand.IntN(2) == 0 {
			th.state = m.say()
			more = `,"presence":` + th.state
		}
		m.p.say(`{"op":"join","sub":"%d","routing":{"thread_id":"th%d"},"channels":["chat","presence"]%s}`, i, i, more)
		joined := m.read(twinrail.OpJoined)
		th.cursor = joined.Cursor
		m.issued(joined.ResumeToken)
	case n < 7 && th.joined:
		m.p.say(`{"op":"leave","sub":"%d"}`, i)
		left := m.read(twinrail.OpLeft)
		th.joined, th.state = false, ""
		m.issued(left.ResumeToken)
	case n < 9 && th.joined:
		th.state = m.say()
		m.p.say(`{"op":"presence","sub":"%d","state":%s}`, i, th.state)
	case n < 10:
		m.resume(true)
	case n < 11:
		m.resume(false)
	default:
		time.Sleep(time.Duration(m.rand.IntN(3000)) * time.Millisecond)
	}
}

func (m *sessionModel) publish() {
	i := m.rand.IntN(modelThreads)
	m.stored++
	m.r.publish(on(fmt.Sprint("th", i), "", m.stored))
	m.threads[i].log = append(m.threads[i].log, strconv.Itoa(m.stored))
}

// resume has another connection take the session, after the first was cut, or
// while it hangs.
func (m *sessionModel) resume(cut bool) {
	m.past = append(m.past, m.p)
	late := false
	if cut {
		switch m.rand.IntN(3) {
		case 0:
			m.p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(4200, "")))
			go drainFrames(m.p)
			synctest.Wait()
		default:
			m.p.cut()
		}
		if late = m.rand.IntN(3) == 0; late {
			time.Sleep(11 * time.Second)
		}
	} else if m.rand.IntN(2) == 0 {
		go drainFrames(m.p)
	}
	for range m.rand.IntN(4) {
		m.publish()
	}
	if late { // who was present has left, and comes again
		m.watch(func(i int) string { return "" })
	}
	with := m.tokens[m.rand.IntN(len(m.tokens))]
	cursors := make(map[string]string)
	for i, joined := range with.joined {
		if joined {
			cursors[strconv.Itoa(i)] = m.threads[i].cursor
		}
		th := &m.threads[i]
		held := th.joined && th.state != ""
		th.joined = joined
		switch {
		case !joined:
			th.state = ""
		case !held && with.present[i]:
			th.state = "-"
		}
	}
	m.p, _ = m.r.greet(m.r.token)
	resumed := m.p.resumes(with.token, cursors)
	if len(resumed.Subs) != len(cursors) {
		m.t.Fatalf("resumed %+v, want %v", resumed.Subs, cursors)
	}
	m.tokens = nil
	m.issued(resumed.ResumeToken)
}

// read reads frames until one with that op; with "" until nothing more comes.
func (m *sessionModel) read(op string) twinrail.ServerFrame {
	for {
		f, ok := nextWithin(m.p, 100*time.Millisecond)
		switch {
		case !ok && op == "":
			return f
		case ok && op != "" && f.Op == op:
			return f
		case ok && f.Op == twinrail.OpEvent:
			m.event(f)
		case ok && f.Op == twinrail.OpLive:
			m.threads[m.number(f.Sub)].cursor = f.Cursor
		case !ok || f.Op != twinrail.OpPresence:
			m.t.Fatalf("got %+v, want %q", f, op)
		}
	}
}

func (m *sessionModel) event(f twinrail.ServerFrame) {
	var e twinrail.Event
	unmarshal(m.t, f.Event, &e)
	th := &m.threads[m.number(f.Sub)]
	if !th.joined || th.next >= len(th.log) || th.log[th.next] != string(e.Data) {
		m.t.Fatalf("thread %s: got %s, want number %d of %v", f.Sub, e.Data, th.next, th.log)
	}
	th.next++
	th.cursor = e.Cursor
}

func (m *sessionModel) number(sub string) int {
	i, err := strconv.Atoi(sub)
	if err != nil {
		m.t.Fatal(err)
	}
	return i
}

// nextWithin returns the next frame but for pings, where one comes within d of
// the last.
func nextWithin(p *peer, d time.Duration) (s twinrail.ServerFrame, ok bool) {
	p.t.Helper()
	for {
		_ = p.nc.SetReadDeadline(time.Now().Add(d))
		f, err := readServerFrame(p.br)
		if isTimeout(err) {
			return s, false
		}
		if err != nil {
			p.t.Fatal(err)
		}
		s = twinrail.ServerFrame{}
		unmarshal(p.t, f.Payload, &s)
		if s.Op != twinrail.OpPing {
			return s, true
		}
		p.say(`{"op":"pong"}`)
	}
}

// watch reads what eve is told, which must be the way from what she saw to want,
// and no detour.
func (m *sessionModel) watch(want func(i int) string) {
	state := func(member twinrail.PresenceMember) string {
		if member.State == nil {
			return "-"
		}
		return string(member.State)
	}
	var came, left [modelThreads]int
	was := m.threads
	for {
		f, ok := nextWithin(m.eve, 100*time.Millisecond)
		if !ok {
			break
		}
		if f.Op != twinrail.OpPresence {
			m.t.Fatalf("eve was told %+v", f)
		}
		i := m.number(f.Sub)
		for range f.Leave {
			left[i]++
			m.threads[i].seen = ""
		}
		for _, member := range f.Join {
			came[i]++
			m.threads[i].seen = state(member)
		}
		for _, member := range f.Update {
			m.threads[i].seen = state(member)
		}
	}
	for i := range m.threads {
		comes := was[i].seen == "" && want(i) != ""
		leaves := was[i].seen != "" && want(i) == ""
		if seen := m.threads[i].seen; seen != want(i) || came[i] != count01(comes) || left[i] != count01(leaves) {
			m.t.Fatalf("thread %d: eve saw %q, then %d who came and %d who left, and now %q; want %q", i, was[i].seen, came[i], left[i], seen, want(i))
		}
	}
}

func count01(b bool) int {
	if b {
		return 1
	}
	return 0
}

// check compares what was told with what is true.
func (m *sessionModel) check() {
	m.read("")
	for i, th := range m.threads {
		if th.joined && th.next != len(th.log) {
			m.t.Fatalf("thread %d: got %d of %v", i, th.next, th.log)
		}
	}
	m.watch(func(i int) string { return m.threads[i].state })
	if got := m.r.sessionsHeld(); got != "2 2" {
		m.t.Fatalf("%s sessions", got)
	}
	if len(m.past) > 0 && m.rand.IntN(2) == 0 { // what hung, ends
		_ = m.past[0].nc.Close()
		m.past = slices.Delete(m.past, 0, 1)
	}
}

// TestSessionModel leads sessions through joins, presence, cuts, take-overs and
// resumes with any of the tokens that are good, and holds what the client and a
// watcher are told against what is true.
func TestSessionModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newSessionModel(t, seed)
				for range 60 {
					m.step()
					m.check()
				}
				if n := m.r.metric(`twinrail_resumes_total{code=""}`); n == 0 {
					t.Error("nothing was resumed")
				}
			})
		})
	}
}
