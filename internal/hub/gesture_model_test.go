package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// gestureRights are what a model needs to have people make and read gestures.
type gestureRights struct {
	readers []auth.Reader // of each of gesturePeople
	writers map[string]map[twinrail.Audience]auth.Writer
}

var (
	gesturePeople = []person{
		{"u_1", twinrail.Audience{}, []twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Gesture}},
		{"u_2", twinrail.Audience{SurfaceID: "s1"}, []twinrail.Channel{twinrail.Commit, twinrail.Gesture}},
		{"u_3", twinrail.Audience{SurfaceID: "s1", PanelID: "pn1", ThreadID: "t1"}, []twinrail.Channel{twinrail.Gesture}},
		{"u_4", twinrail.Audience{SurfaceID: "s2"}, []twinrail.Channel{twinrail.Artifact}},
	}
	gestureActors = []string{"u_1", "u_2", "u_9"}
)

func newGestureRights(t authtest.T) gestureRights {
	may := gestureRights{writers: make(map[string]map[twinrail.Audience]auth.Writer)}
	for _, p := range gesturePeople {
		may.readers = append(may.readers, p.reader(t, "c1"))
	}
	issuer := authtest.New(t)
	for _, actor := range gestureActors {
		may.writers[actor] = make(map[twinrail.Audience]auth.Writer)
		for _, a := range audiences {
			routing := a.AddTo(canvasRouting("c1"))
			routing.ActorID = actor
			may.writers[actor][a] = issuer.Writer(routing, twinrail.Gesture)
		}
	}
	return may
}

// made is a gesture of a model.
type made struct {
	message
	actor, kind string
	at          time.Time
}

// sameAs reports whether g takes the place of old.
func (g made) sameAs(old made) bool {
	return g.actor == old.actor && g.kind == old.kind && g.audience == old.audience && slices.Equal(g.to, old.to)
}

func (may gestureRights) make(h *hub.Hub, g made) error {
	return h.Gesture(may.writers[g.actor][g.audience], twinrail.Event{ID: g.id, Type: g.kind, To: g.to, Data: json.RawMessage("1")})
}

var drawMade = rapid.Custom(func(t *rapid.T) made {
	return made{
		message: message{
			channel:  twinrail.Gesture,
			audience: rapid.SampledFrom(audiences).Draw(t, "audience"),
			to:       rapid.SampledFrom([][]string{nil, nil, {"u_1"}, {"u_2", "u_3"}}).Draw(t, "to"),
		},
		actor: rapid.SampledFrom(gestureActors).Draw(t, "actor"),
		kind:  rapid.SampledFrom([]string{"pointer", "caret"}).Draw(t, "kind"),
	}
})

// gestureOp is a step of a schedule.
type gestureOp struct {
	kind   string // gesture, next, on, off, sleep
	made   made
	person int
	max    int
	sleep  time.Duration
	settle bool
}

func drawGestureOps(t *rapid.T) []gestureOp {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) gestureOp {
		o := gestureOp{
			kind:   rapid.SampledFrom([]string{"gesture", "gesture", "gesture", "next", "next", "next", "on", "off", "sleep"}).Draw(t, "kind"),
			settle: rapid.Bool().Draw(t, "settle"),
		}
		switch o.kind {
		case "gesture":
			o.made = drawMade.Draw(t, "gesture")
		case "sleep":
			o.sleep = time.Duration(rapid.SampledFrom([]int{1, 10, 33, 100, 3000}).Draw(t, "ms")) * time.Millisecond
		default:
			o.person = rapid.IntRange(0, len(gesturePeople)-1).Draw(t, "person")
			o.max = rapid.SampledFrom([]int{1, 500, large}).Draw(t, "max")
		}
		return o
	}), 1, 80).Draw(t, "ops")
}

// TestGestureModel has people read gestures at whatever pace, and turn them on
// and off. Each is told of nothing but what was the newest when it was told, is
// meant for it, not too old, and came since it turned gestures on; in order, and
// never twice. In the end each knows the newest, and nobody sleeps on.
func TestGestureModel(t *testing.T) {
	may := newGestureRights(t)
	rapid.Check(t, func(rt *rapid.T) {
		ops := drawGestureOps(rt)
		var err error
		synctest.Test(t, func(*testing.T) { err = runGestures(may, ops) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func runGestures(may gestureRights, ops []gestureOp) error {
	m := &gestureModel{}
	h := hub.New(journal.NewMemory(journal.MemoryOptions{}), hub.Options{Window: large, Encode: encode, EncodeGesture: encodeGesture})
	viewers := make([]*modelViewer, len(gesturePeople))
	for i, p := range gesturePeople {
		v := &modelViewer{model: m, person: p, last: -1, since: -1, known: make(map[int]bool)}
		var err error
		if v.sub, _, err = h.Subscribe(context.Background(), may.readers[i], hub.From{}, func() { v.woken = true }); err != nil {
			return err
		}
		defer v.sub.Close()
		viewers[i] = v
	}
	for _, o := range ops {
		var err error
		switch o.kind {
		case "gesture":
			err = m.make(may, h, o.made)
		case "sleep":
			time.Sleep(o.sleep)
		case "next":
			_, err = viewers[o.person].next(o.max)
		default:
			viewers[o.person].turn(o.kind == "on")
		}
		if err != nil {
			return err
		}
		if o.settle {
			synctest.Wait()
		}
	}
	// A round for what is due, and one more for what is due after that.
	for range 2 {
		aRound()
		for i, v := range viewers {
			if err := v.rest(); err != nil {
				return fmt.Errorf("%s: %w", gesturePeople[i].actor, err)
			}
		}
	}
	for i, v := range viewers {
		if err := v.knowsNewest(); err != nil {
			return fmt.Errorf("%s: %w", gesturePeople[i].actor, err)
		}
	}
	return nil
}

// gestureModel is all the gestures that were made.
type gestureModel struct{ all []made }

func (m *gestureModel) make(may gestureRights, h *hub.Hub, g made) error {
	g.id, g.at = fmt.Sprint(len(m.all)), time.Now()
	m.all = append(m.all, g)
	return may.make(h, g)
}

func (m *gestureModel) newest(i int) bool {
	return !slices.ContainsFunc(m.all[i+1:], func(later made) bool { return later.sameAs(m.all[i]) })
}

// modelViewer is one who reads gestures, as the model sees it.
type modelViewer struct {
	model  *gestureModel
	person person
	sub    *hub.Sub
	since  int // the first gesture after it turned them on, or -1
	last   int // the last that it was told of
	known  map[int]bool
	parked bool
	woken  bool // since it was parked; set by the hub, read when that rests
}

func (v *modelViewer) turn(on bool) {
	v.sub.SetGestures(on)
	switch {
	case !on:
		v.since = -1
	case v.since < 0:
		v.since = len(v.model.all)
	}
}

func (v *modelViewer) next(max int) (hub.Batch, error) {
	synctest.Wait()
	v.woken = false
	b, err := v.sub.Next(context.Background(), nil, max)
	if err != nil {
		return b, err
	}
	v.parked = b.Parked
	size := 0
	for _, it := range b.Gestures {
		var e twinrail.Event
		if err := json.Unmarshal(it.Wire, &e); err != nil {
			return b, err
		}
		if err := v.tell(e.ID); err != nil {
			return b, err
		}
		size += len(it.Wire)
	}
	if len(b.Items) > 0 || b.Reset != nil || v.sub.Cursor().Seq != 0 || b.Parked && size > 0 || len(b.Gestures) > 1 && size > max {
		return b, fmt.Errorf("%s got %+v of %d bytes, at %v", v.person.actor, b, size, v.sub.Cursor())
	}
	return b, nil
}

func (v *modelViewer) tell(id string) error {
	i := slices.IndexFunc(v.model.all, func(g made) bool { return g.id == id })
	g := v.model.all[i]
	switch {
	case v.since < 0 || i < v.since:
		return fmt.Errorf("%s was told of gesture %d, and turned them on at %d", v.person.actor, i, v.since)
	case i <= v.last:
		return fmt.Errorf("%s was told of gesture %d after %d", v.person.actor, i, v.last)
	case !g.meantFor(v.person):
		return fmt.Errorf("%s was told of %+v", v.person.actor, g)
	case !v.model.newest(i):
		return fmt.Errorf("%s was told of gesture %d, which was not the newest", v.person.actor, i)
	case time.Since(g.at) >= 5*time.Second:
		return fmt.Errorf("%s was told of gesture %d after %v", v.person.actor, i, time.Since(g.at))
	}
	v.last, v.known[i] = i, true
	return nil
}

// rest has v read all; where it sleeps, there must be nothing for it to read.
func (v *modelViewer) rest() error {
	sleeps := v.parked && !v.woken
	for range 1000 {
		b, err := v.next(large)
		if err != nil || b.Parked {
			return err
		}
		if sleeps {
			return fmt.Errorf("sleeps on, with %+v to read", b)
		}
	}
	return errors.New("never parked")
}

func (v *modelViewer) knowsNewest() error {
	if v.since < 0 {
		return nil
	}
	for i, g := range v.model.all {
		if i >= v.since && g.meantFor(v.person) && v.model.newest(i) && time.Since(g.at) < 5*time.Second && !v.known[i] {
			return fmt.Errorf("was not told of %+v", g)
		}
	}
	return nil
}

// TestGestureTranscripts has people read one log through two hubs, of which one
// has a storm of gestures: what they see of the log is the same, byte for byte.
func TestGestureTranscripts(t *testing.T) {
	may := newGestureRights(t)
	logRights := rights{readers: may.readers, writers: newWriters(t, "c1", audiences)}
	rapid.Check(t, func(rt *rapid.T) {
		ops := drawOps(rt)
		storm := rapid.SliceOfN(rapid.SliceOfN(drawMade, 0, 5), len(ops), len(ops)).Draw(rt, "storm")
		var err error
		synctest.Test(t, func(*testing.T) { err = runStorm(may, logRights, ops, storm) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// runStorm makes the gestures of storm before each step.
func runStorm(may gestureRights, logRights rights, ops []op, storm [][]made) error {
	log := &fanout{Journal: journal.NewMemory(journal.MemoryOptions{Stride: 2})}
	log.Journal.Notify(log.notify)
	model := &transcriptModel{}
	o := hub.Options{Window: 3000, Encode: encode, EncodeGesture: encodeGesture}
	quiet := &view{window: o.Window, may: logRights, hub: hub.New(log, o)}
	stormy := &view{window: o.Window, may: logRights, hub: hub.New(log, o)}
	views := []*view{quiet, stormy}
	for _, v := range views {
		defer v.close()
		if err := v.open(); err != nil {
			return err
		}
	}
	for i, o := range ops {
		for _, s := range stormy.subs {
			s.SetGestures(true)
		}
		for _, g := range storm[i] {
			if err := may.make(stormy.hub, g); err != nil {
				return err
			}
		}
		if o.kind == "append" {
			if err := model.append(log, logRights.writers, o.batch); err != nil {
				return err
			}
		}
		synctest.Wait()
		for _, v := range views {
			if o.kind == "reopen" {
				// What was not read by then would be skipped.
				if err := v.drain(o.person); err != nil {
					return err
				}
			}
			if err := v.do(o); err != nil {
				return err
			}
		}
		if o.settle {
			aRound()
		}
	}
	if err := sameTranscripts(quiet, stormy); err != nil {
		return err
	}
	page, err := log.Read(context.Background(), logRights.readers[0], 0, large)
	if err != nil || len(page.Entries) != len(model.lines) {
		return fmt.Errorf("the log has %d entries, %v, where %d were appended", len(page.Entries), err, len(model.lines))
	}
	return nil
}

// sameTranscripts has all read up, and compares what they saw.
func sameTranscripts(quiet, stormy *view) error {
	synctest.Wait()
	for i, p := range gesturePeople {
		for _, v := range []*view{quiet, stormy} {
			if err := v.drain(i); err != nil {
				return err
			}
		}
		if !bytes.Equal(quiet.transcripts[i], stormy.transcripts[i]) {
			return fmt.Errorf("%s saw\n%s\nin the storm, else\n%s", p.actor, stormy.transcripts[i], quiet.transcripts[i])
		}
		if quiet.subs[i].Cursor() != stormy.subs[i].Cursor() {
			return fmt.Errorf("%s is at %v in the storm, else at %v", p.actor, stormy.subs[i].Cursor(), quiet.subs[i].Cursor())
		}
	}
	return nil
}
