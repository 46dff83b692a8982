package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// encodeGesture makes the event's JSON, as the rails do.
func encodeGesture(e *twinrail.Event) []byte { return e.AppendTail(e.AppendHead(nil)) }

// gestureRig is a rig with people who make gestures in its stream.
type gestureRig struct {
	*rig
	issuer *authtest.Issuer
	made   int
}

func newGestureRig(t testing.TB) *gestureRig {
	t.Helper()
	j := &tapped{Journal: journal.NewMemory(journal.MemoryOptions{})}
	r := &rig{t: t, journal: j, stream: journaltest.NewStream(t, "c1"), encoded: make(map[uint64]int)}
	r.hub = hub.New(j, hub.Options{Window: large, Encode: r.encode, EncodeGesture: encodeGesture})
	return &gestureRig{rig: r, issuer: authtest.New(t)}
}

// gesture makes one, and returns its id.
func (r *gestureRig) gesture(actor, kind string, audience twinrail.Audience, to ...string) string {
	r.t.Helper()
	r.made++
	id := fmt.Sprintf("g%d", r.made)
	routing := audience.AddTo(canvasRouting("c1"))
	routing.ActorID = actor
	e := twinrail.Event{ID: id, Type: kind, Time: time.Now(), To: to, Data: json.RawMessage(`{"x":1}`)}
	if err := r.hub.Gesture(r.issuer.Writer(routing, twinrail.Gesture), e); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *gestureRig) pointer(actor string) string {
	r.t.Helper()
	return r.gesture(actor, "pointer", twinrail.Audience{})
}

func (r *gestureRig) reader(actor string, audience twinrail.Audience, channels ...twinrail.Channel) auth.Reader {
	return person{actor, audience, channels}.reader(r.t, "c1")
}

// viewer subscribes one who reads commits and gestures.
func (r *gestureRig) viewer(actor string, audience twinrail.Audience) *subscriber {
	r.t.Helper()
	s := r.subscribeAs(r.reader(actor, audience, twinrail.Commit, twinrail.Gesture), "")
	s.SetGestures(true)
	return s
}

func idsOf(t testing.TB, gestures []*hub.Item) []string {
	t.Helper()
	var ids []string
	for _, it := range gestures {
		var e twinrail.Event
		if err := json.Unmarshal(it.Wire, &e); err != nil {
			t.Fatal(err)
		}
		if it.Channel != twinrail.Gesture || e.Channel != twinrail.Gesture || it.Cursor != (twinrail.Cursor{}) {
			t.Fatalf("no gesture: %+v, %s", it, it.Wire)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// told calls Next until s is parked, and returns the ids of the gestures that
// came; nothing else may.
func (s *subscriber) told(max int) []string {
	s.t.Helper()
	at := s.Cursor()
	var ids []string
	for range 10_000 {
		b := s.next(max)
		if len(b.Items) > 0 || b.Reset != nil || s.Cursor() != at {
			s.t.Fatalf("more than gestures: %+v, at %v, which was %v", b, s.Cursor(), at)
		}
		ids = append(ids, idsOf(s.t, b.Gestures)...)
		if b.Parked {
			return ids
		}
	}
	s.t.Fatal("not parked after 10,000 calls of Next")
	return nil
}

func (s *subscriber) wantTold(ids ...string) {
	s.t.Helper()
	if got := s.told(large); !slices.Equal(got, ids) {
		s.t.Fatalf("told of %v, want %v", got, ids)
	}
}

// aRound lets one round of gestures pass.
func aRound() {
	time.Sleep(hub.GestureInterval)
	synctest.Wait()
}

func TestGestureWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_2", twinrail.Audience{SurfaceID: "s1"})
		r.gesture("u_7", "drag.move", twinrail.Audience{SurfaceID: "s1"}, "u_2", "u_3")
		b := s.next(large)
		if len(b.Gestures) != 1 || b.Items != nil {
			t.Fatalf("got %+v", b)
		}
		want := `{"v":1,"id":"g1","channel":"gesture","type":"drag.move","time":"2000-01-01T00:00:00.000000Z","actor_type":"human",` +
			`"routing":{"tenant_id":"t_acme","env":"dev","workspace_id":"w1","project_id":"p1","app_id":"studio","surface_id":"s1","canvas_id":"c1","actor_id":"u_7"},` +
			`"to":["u_2","u_3"],"request_id":"req-1","data":{"x":1}}`
		if got := string(b.Gestures[0].Wire); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// Encoding is for all who receive it, and for nobody where nobody does.
func TestGestureEncodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoded := 0
		r := newGestureRig(t)
		r.hub = hub.New(r.journal, hub.Options{Window: large, Encode: encode, EncodeGesture: func(e *twinrail.Event) []byte {
			encoded++
			return encodeGesture(e)
		}})
		r.pointer("u_1") // no stream
		off := r.viewer("u_2", twinrail.Audience{})
		off.SetGestures(false)
		r.subscribe("")
		r.pointer("u_1")
		if encoded != 0 {
			t.Fatalf("encoded %d times for nobody", encoded)
		}
		var shared []*hub.Item
		viewers := []*subscriber{r.viewer("u_2", twinrail.Audience{}), r.viewer("u_3", twinrail.Audience{})}
		r.pointer("u_1")
		for _, s := range viewers {
			shared = append(shared, s.next(large).Gestures...)
		}
		if encoded != 1 || len(shared) != 2 || shared[0] != shared[1] {
			t.Fatalf("encoded %d times, told of %v", encoded, shared)
		}
	})
}

func TestGestureNewestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		none, s1 := twinrail.Audience{}, twinrail.Audience{SurfaceID: "s1"}
		s := r.viewer("u_2", s1)
		r.gesture("u_1", "pointer", none)
		r.gesture("u_3", "pointer", none)
		ids := []string{r.gesture("u_1", "pointer", none)} // now after u_3's
		ids = append(ids, r.gesture("u_1", "caret", none))
		ids = append(ids, r.gesture("u_1", "pointer", s1))
		ids = append(ids, r.gesture("u_1", "pointer", none, "u_2"))
		ids = append(ids, r.gesture("u_3", "pointer", none))
		s.wantTold(ids...)
		aRound()
		s.wantTold() // of nothing twice
		again := r.gesture("u_1", "caret", none)
		aRound()
		s.wantTold(again)
	})
}

// TestGestureMatch goes through who is to be told of what, against the contract's
// rule.
func TestGestureMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := []twinrail.Channel{twinrail.Commit, twinrail.Gesture}
		people := []person{
			{"u_1", twinrail.Audience{}, both},
			{"u_2", twinrail.Audience{SurfaceID: "s1"}, []twinrail.Channel{twinrail.Gesture}},
			{"u_3", twinrail.Audience{SurfaceID: "s1", PanelID: "pn1", ThreadID: "t1"}, both},
			{"u_3", twinrail.Audience{SurfaceID: "s2"}, both},
			{"u_4", twinrail.Audience{SurfaceID: "s1"}, []twinrail.Channel{twinrail.Commit}},
		}
		r := newGestureRig(t)
		subs := make([]*subscriber, len(people))
		for i, p := range people {
			subs[i] = r.subscribeAs(p.reader(t, "c1"), "")
			subs[i].SetGestures(true)
		}
		var messages []message
		for _, to := range [][]string{nil, {"u_1"}, {"u_3", "u_4"}} {
			for _, a := range audiences {
				id := r.gesture("u_9", "pointer", a, to...)
				messages = append(messages, message{id, twinrail.Gesture, a, to})
			}
		}
		for i, p := range people {
			var want []string
			for _, m := range messages {
				if m.meantFor(p) {
					want = append(want, m.id)
				}
			}
			if got := subs[i].told(large); !slices.Equal(got, want) {
				t.Errorf("%+v was told of %v, want %v", p, got, want)
			}
		}
	})
}

// Gestures stay in their stream, whatever the streams have in common.
func TestGestureStaysInStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		here := r.viewer("u_1", twinrail.Audience{})
		var others []*subscriber
		for _, change := range []func(*twinrail.Routing){
			func(r *twinrail.Routing) { r.CanvasID = "c2" },
			func(r *twinrail.Routing) { r.TenantID = "t_other" },
			func(r *twinrail.Routing) { r.Env = "prod" },
		} {
			routing := canvasRouting("c1")
			change(&routing)
			s := r.subscribeAs(r.issuer.Reader(routing, twinrail.CanvasStream, twinrail.Gesture), "")
			s.SetGestures(true)
			s.wantTold()
			others = append(others, s)
		}
		id := r.pointer("u_1")
		aRound()
		for _, s := range others {
			s.wantTold()
			s.wantWakes(0)
		}
		here.wantTold(id)
	})
}

func TestGestureRefusesOtherRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_2", twinrail.Audience{})
		for _, w := range []auth.Writer{{}, r.stream.Writer} {
			if err := r.hub.Gesture(w, twinrail.Event{ID: "g1", Type: "pointer"}); err == nil {
				t.Errorf("a gesture with %+v", w)
			}
		}
		s.wantTold()
	})
}

// What is in a stream comes first, in however many batches; gestures leave the
// position as it is, and the journal too.
func TestGestureAfterCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		live, behind := r.viewer("u_2", twinrail.Audience{}), r.viewer("u_3", twinrail.Audience{})
		commits := r.append(1)
		id := r.pointer("u_1")
		commits = append(commits, r.append(2)...)
		for _, c := range commits {
			b := live.next(1)
			if len(b.Gestures) > 0 {
				t.Fatalf("told of gestures with commits to come: %+v", b)
			}
			wantItems(t, b.Items, c)
		}
		live.wantTold(id)
		if live.Cursor() != commits[2].Cursor {
			t.Errorf("at %v after gestures, want %v", live.Cursor(), commits[2].Cursor)
		}
		if bounds, err := r.journal.Bounds(t.Context(), r.stream.Reader); err != nil || bounds.Head != commits[2].Cursor {
			t.Errorf("the journal ends at %v, %v, want %v", bounds.Head, err, commits[2].Cursor)
		}
		// Out of the journal, where the window does not go back so far.
		old := r.subscribeAs(behind.Reader(), twinrail.CursorEarliest)
		old.SetGestures(true)
		later := r.pointer("u_1")
		wantItems(t, old.next(large).Items, commits...)
		old.wantTold(later)
	})
}

// A slow reader is told of the newest only, the oldest of these first, within
// what fits.
func TestGestureSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_0", twinrail.Audience{})
		newest := make([]string, 5)
		for range 200 {
			for i := range newest {
				newest[i] = r.pointer(fmt.Sprintf("u_%d", i+1))
			}
			time.Sleep(time.Millisecond)
		}
		b := s.next(1)
		if got := idsOf(t, b.Gestures); !slices.Equal(got, newest[:1]) {
			t.Fatalf("told of %v, want %v", got, newest[:1])
		}
		two := 2 * len(b.Gestures[0].Wire)
		if got := idsOf(t, s.next(two).Gestures); !slices.Equal(got, newest[1:3]) {
			t.Fatalf("told of %v, want %v", got, newest[1:3])
		}
		// One changes that has not been told of: it is, once, as it is by then.
		newest[3] = r.pointer("u_4")
		if got, want := s.told(large), newest[4:]; !slices.Equal(got, want) {
			t.Fatalf("told of %v, want %v", got, want)
		}
		aRound()
		s.wantTold(newest[3])
	})
}

// Who has not been told for some seconds is not told of where pointers were then.
func TestGestureExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_0", twinrail.Audience{})
		r.pointer("u_1")
		time.Sleep(time.Second)
		fresh := r.pointer("u_2")
		time.Sleep(4 * time.Second)
		s.wantTold(fresh)
	})
}

func TestGestureOnOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.subscribeAs(r.reader("u_2", twinrail.Audience{}, twinrail.Gesture), "")
		keeper := r.viewer("u_3", twinrail.Audience{}) // has the stream hold gestures all the time
		r.pointer("u_1")
		aRound()
		s.wantTold() // off at first
		s.wantWakes(0)
		s.SetGestures(true) // while it is parked
		s.SetGestures(true)
		s.wantTold() // of what was before
		on := r.pointer("u_1")
		aRound()
		s.wantWakes(1)
		s.wantTold(on)
		r.pointer("u_1")
		s.SetGestures(false)
		s.SetGestures(false)
		aRound()
		s.wantTold()
		s.wantWakes(1)
		s.SetGestures(true)
		again := r.pointer("u_1")
		aRound()
		s.wantWakes(2)
		s.wantTold(again)
		s.Close()
		s.SetGestures(true)
		keeper.wantTold(again)
		keeper.Close()
		wantStreams(t, r.rig, 0)
		if _, err := s.Next(t.Context(), nil, large); !errors.Is(err, hub.ErrClosed) {
			t.Errorf("next after close: %v", err)
		}
	})
}

func TestGestureManyActors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_0", twinrail.Audience{})
		w := r.issuer.Writer(canvasRouting("c1"), twinrail.Gesture)
		for i := range 1500 {
			e := twinrail.Event{ID: fmt.Sprint(i), Type: fmt.Sprintf("kind%d", i), Data: json.RawMessage(`"` + strings.Repeat("x", 64) + `"`)}
			if err := r.hub.Gesture(w, e); err != nil {
				t.Fatal(err)
			}
		}
		got := s.told(4096)
		if n := len(got); n == 0 || n > 1024 || got[n-1] != "1499" || got[0] != fmt.Sprint(1500-n) {
			t.Fatalf("told of %d of 1500, of %s to %s", n, got[0], got[n-1])
		}
		if evicted := r.hub.GesturesEvicted(); evicted != uint64(1500-len(got)) {
			t.Errorf("%d were evicted, where %d are missing", evicted, 1500-len(got))
		}
	})
}
