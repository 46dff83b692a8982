package presence_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

const (
	interval = 50 * time.Millisecond
	grace    = 10 * time.Second
)

// spots are where the sessions of the model go, in the order in which those are who
// come at the same time; eyes where its watchers are. The last watcher has no right on the channel presence.
var (
	spots = []twinrail.Address{
		{Home: canvas},
		{Home: canvas, Audience: twinrail.Audience{PanelID: "pn1"}},
		{Home: canvas, Audience: twinrail.Audience{PanelID: "pn2"}},
		{Home: canvas, Audience: twinrail.Audience{PanelID: "pn1", SurfaceID: "s1"}},
		{Home: thread},
	}
	eyes = append(slices.Clone(spots[1:]), twinrail.Address{Home: canvas}, twinrail.Address{Home: canvas, Audience: spots[1].Audience})
	// actors are those of the sessions: two of them are of one.
	actors    = []string{"u_1", "u_1", "u_2", "u_3"}
	holdNames = []string{"h1", "h2", "h3", "h4"}
)

// modelRights are what the sessions and the watchers of the model may do.
type modelRights struct {
	writers map[string][]auth.Writer // by actor, for each of spots
	readers []auth.Reader            // for each of eyes
}

func newModelRights(t *testing.T) modelRights {
	rig := newRig(t)
	rights := modelRights{writers: make(map[string][]auth.Writer)}
	for _, actor := range slices.Compact(slices.Clone(actors)) {
		for _, at := range spots {
			rights.writers[actor] = append(rights.writers[actor], rig.writer(actor, at.Home, at.Audience))
		}
	}
	for _, at := range eyes {
		rights.readers = append(rights.readers, rig.reader(at.Home, at.Audience))
	}
	blind := eyes[len(eyes)-1].Routing()
	blind.ActorID = "u_reader"
	rights.readers[len(eyes)-1] = rig.issuer.Reader(blind, twinrail.CanvasStream, twinrail.Commit)
	return rights
}

// modelOp is a step of a run.
type modelOp struct {
	kind    string // enter, leave, lose, regain, close, open, sleep, next, watch
	session int
	spot    int
	hold    string
	holds   []string
	state   string
	watcher int
	max     int
	sleep   time.Duration
}

func drawModelOps(t *rapid.T) []modelOp {
	hold := rapid.SampledFrom(holdNames)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) modelOp {
		o := modelOp{kind: rapid.SampledFrom([]string{
			"enter", "enter", "enter", "enter", "leave", "leave", "lose", "regain", "close", "open",
			"sleep", "sleep", "next", "next", "next", "watch",
		}).Draw(t, "kind")}
		switch o.kind {
		case "sleep":
			o.sleep = rapid.SampledFrom([]time.Duration{1, time.Millisecond, interval - 1, interval, grace / 2, grace}).Draw(t, "sleep")
			return o
		case "next", "watch":
			o.watcher = rapid.IntRange(0, len(eyes)-1).Draw(t, "watcher")
			o.max = rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "max")
			return o
		case "enter":
			o.spot = rapid.IntRange(0, len(spots)-1).Draw(t, "spot")
			o.state = rapid.SampledFrom([]string{"", `1`, `{"a":[]}`, `null`}).Draw(t, "state")
			fallthrough
		case "leave":
			o.hold = hold.Draw(t, "hold")
		case "regain":
			o.holds = rapid.SliceOfDistinct(hold, rapid.ID).Draw(t, "holds")
		}
		o.session = rapid.IntRange(0, len(actors)-1).Draw(t, "session")
		return o
	}), 20, 200).Draw(t, "ops")
}

// TestModel has several sessions come, change, get lost, come back and go in any
// order, and watchers of all audiences fold what they are told over what they
// were shown: whenever one is up to date, it knows exactly what is so.
func TestModel(t *testing.T) {
	rights := newModelRights(t)
	rapid.Check(t, func(rt *rapid.T) {
		ops := drawModelOps(rt)
		limit := rapid.SampledFrom([]int{1, 2, 100}).Draw(rt, "limit")
		var err error
		synctest.Test(t, func(*testing.T) { err = runModel(rights, limit, ops) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func runModel(rights modelRights, limit int, ops []modelOp) error {
	m := &model{rights: rights, limit: limit, registry: presence.New(presence.Options{Grace: grace, Interval: interval, MaxMembers: limit}), last: make(map[int]int64)}
	for i := range actors {
		m.sessions = append(m.sessions, m.open(i))
	}
	for _, r := range rights.readers {
		m.followers = append(m.followers, follow(m.registry, r))
	}
	for i, o := range ops {
		if err := m.step(o); err != nil {
			return fmt.Errorf("step %d, %+v: %w", i, o, err)
		}
		synctest.Wait()
		m.expire()
		if err := m.check(); err != nil {
			return fmt.Errorf("after step %d, %+v: %w", i, o, err)
		}
	}
	return m.finish()
}

// model is what is so, said as simply as can be.
type model struct {
	rights   modelRights
	limit    int
	registry *presence.Registry

	opened    int
	sessions  []*modelSession
	followers []*follower
	present   []modelMember // in order
	last      map[int]int64 // by spot, the place in the order of the last who came
}

type modelSession struct {
	*presence.Session
	id, actor string
	holds     []modelHold
	states    map[int]string // by spot
	expires   time.Time      // zero unless lost and not away yet
	away      bool
	closed    bool
}

type modelHold struct {
	name string
	spot int
}

type modelMember struct {
	session *modelSession
	spot    int
	since   time.Time
	at      int64 // its place in the order, in microseconds
	state   string
}

func (m *model) open(i int) *modelSession {
	m.opened++
	id := fmt.Sprintf("ses_%d", m.opened)
	return &modelSession{Session: m.registry.Session(id), id: id, actor: actors[i], states: make(map[int]string)}
}

func (m *model) step(o modelOp) error {
	s := m.sessions[o.session]
	switch o.kind {
	case "enter":
		return m.enter(s, o)
	case "leave":
		s.Leave(o.hold)
		m.keep(s, func(h modelHold) bool { return h.name != o.hold })
	case "lose":
		s.Lose()
		switch {
		case s.closed || s.away || !s.expires.IsZero():
		case len(s.holds) == 0:
			s.away = true
		default:
			s.expires = time.Now().Add(grace)
		}
	case "regain":
		s.Regain(o.holds)
		m.regain(s, o.holds)
	case "close":
		s.Close()
		m.keep(s, func(modelHold) bool { return false })
		s.closed, s.expires = true, time.Time{}
	case "open":
		s.Close()
		m.keep(s, func(modelHold) bool { return false })
		m.sessions[o.session] = m.open(o.session)
	case "sleep":
		return m.sleep(o.sleep)
	case "next":
		return m.next(o.watcher, o.max)
	case "watch":
		m.followers[o.watcher].watch.Close()
		m.followers[o.watcher] = follow(m.registry, m.rights.readers[o.watcher])
	}
	return nil
}

func (m *model) enter(s *modelSession, o modelOp) error {
	err := s.Enter(m.rights.writers[s.actor][o.spot], o.hold, []byte(o.state))
	if s.closed {
		return err
	}
	for _, h := range s.holds {
		if h.name == o.hold && h.spot != o.spot {
			if err == nil {
				return errors.New("one hold at two addresses")
			}
			return nil
		}
	}
	at := m.find(s, o.spot)
	if at < 0 && !s.away {
		if m.count(o.spot) >= m.limit {
			if !hasCode(err, twinrail.CodeLimitExceeded, "presence") {
				return fmt.Errorf("over the limit: %v", err)
			}
			return nil
		}
		m.come(s, o.spot, o.state)
	}
	if err != nil {
		return err
	}
	if at >= 0 {
		m.present[at].state = o.state
	}
	s.states[o.spot] = o.state
	if !slices.Contains(s.holds, modelHold{o.hold, o.spot}) {
		s.holds = append(s.holds, modelHold{o.hold, o.spot})
	}
	return nil
}

// come adds a member, after those who came before, and after all at its spot.
func (m *model) come(s *modelSession, spot int, state string) {
	now := time.Now()
	at := now.UnixMicro()
	if m.count(spot) > 0 {
		at = max(at, m.last[spot]+1)
	}
	m.last[spot] = at
	i := slices.IndexFunc(m.present, func(p modelMember) bool { return p.at > at || p.at == at && p.spot > spot })
	if i < 0 {
		i = len(m.present)
	}
	m.present = slices.Insert(m.present, i, modelMember{s, spot, now, at, state})
}

func (m *model) find(s *modelSession, spot int) int {
	return slices.IndexFunc(m.present, func(p modelMember) bool { return p.session == s && p.spot == spot })
}

func (m *model) count(spot int) (n int) {
	for _, p := range m.present {
		if p.spot == spot {
			n++
		}
	}
	return n
}

// keep drops the other holds of s.
func (m *model) keep(s *modelSession, which func(modelHold) bool) {
	s.holds = slices.DeleteFunc(s.holds, func(h modelHold) bool { return !which(h) })
	for spot := range spots {
		held := slices.ContainsFunc(s.holds, func(h modelHold) bool { return h.spot == spot })
		if at := m.find(s, spot); at >= 0 && !held {
			m.present = slices.Delete(m.present, at, at+1)
		}
	}
}

func (m *model) regain(s *modelSession, holds []string) {
	if s.closed {
		return
	}
	m.keep(s, func(h modelHold) bool { return slices.Contains(holds, h.name) })
	s.away, s.expires = false, time.Time{}
	for _, h := range s.holds {
		if m.find(s, h.spot) < 0 {
			m.come(s, h.spot, s.states[h.spot])
		}
	}
}

// expire has those leave whose grace is over.
func (m *model) expire() {
	for _, s := range m.sessions {
		if !s.expires.IsZero() && !s.expires.After(time.Now()) {
			m.present = slices.DeleteFunc(m.present, func(p modelMember) bool { return p.session == s })
			s.away, s.expires = true, time.Time{}
		}
	}
}

// sleep finds that nobody sleeps on who could be told of something.
func (m *model) sleep(d time.Duration) error {
	time.Sleep(d)
	synctest.Wait()
	if d < interval {
		return nil
	}
	time.Sleep(interval) // for what came only when the time was over
	synctest.Wait()
	for i, f := range m.followers {
		if f.sleepsOn() {
			return fmt.Errorf("watcher %d is parked, and behind", i)
		}
	}
	return nil
}

func (m *model) next(watcher, max int) error {
	_, err := m.followers[watcher].next(max)
	return err
}

// seen returns those present whom the watcher may see.
func (m *model) seen(watcher int) []twinrail.PresenceMember {
	members := []twinrail.PresenceMember{}
	if watcher == len(eyes)-1 {
		return members
	}
	for _, p := range m.present {
		at := spots[p.spot]
		if at.Home != eyes[watcher].Home || !at.Audience.HeldBy(eyes[watcher].Audience) {
			continue
		}
		member := twinrail.PresenceMember{
			ActorID: p.session.actor, ActorType: twinrail.Human, SessionID: p.session.id,
			Since: &twinrail.Timestamp{Time: p.since.UTC().Truncate(time.Microsecond)},
		}
		if at.Audience != (twinrail.Audience{}) {
			member.Routing = &twinrail.Routing{SurfaceID: at.Audience.SurfaceID, PanelID: at.Audience.PanelID}
		}
		if p.state != "" {
			member.State = []byte(p.state)
		}
		members = append(members, member)
	}
	return members
}

// check compares what all can see with what is so.
func (m *model) check() error {
	if err := m.registry.Check(); err != nil {
		return err
	}
	for _, s := range m.sessions {
		for _, name := range holdNames {
			held := slices.ContainsFunc(s.holds, func(h modelHold) bool { return h.name == name })
			if s.Holds(name) != held {
				return fmt.Errorf("%s has the hold %s: %v, where it has %v", s.id, name, !held, s.holds)
			}
		}
	}
	for i, f := range m.followers {
		want := m.seen(i)
		if got := everybody(m.registry, m.rights.readers[i]); !reflect.DeepEqual(got, want) {
			return fmt.Errorf("reader %d sees %+v, where there is %+v", i, got, want)
		}
		if _, stray := f.woken(); stray {
			return fmt.Errorf("watcher %d was woken without having been parked", i)
		}
		if f.watch.UpToDate() {
			if err := f.knows(want); err != nil {
				return fmt.Errorf("watcher %d: %w", i, err)
			}
		}
	}
	return nil
}

// finish has all watchers read to the end, and all leave.
func (m *model) finish() error {
	time.Sleep(interval)
	synctest.Wait()
	m.expire()
	for i, f := range m.followers {
		if err := f.drain(2); err != nil {
			return fmt.Errorf("watcher %d, at the end: %w", i, err)
		}
		if !f.watch.UpToDate() {
			return fmt.Errorf("watcher %d is not told of all at the end", i)
		}
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	for _, s := range m.sessions {
		s.Close()
	}
	synctest.Wait()
	for _, f := range m.followers {
		f.watch.Close()
	}
	if n := m.registry.Rooms(); n != 0 {
		return fmt.Errorf("%d streams are held after all have left", n)
	}
	return nil
}
