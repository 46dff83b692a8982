package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// transcriptWindows are none, one too small for an entry, one for a few, and one
// for all.
var transcriptWindows = []int{0, 1, 3000, large}

// transcriptBudgets are one too small for an entry, ones for a few and some more,
// over which the stream next door empties the window, and one for all.
var transcriptBudgets = []int{1, 4000, 12000, large}

var audiences = []twinrail.Audience{
	{}, {SurfaceID: "s1"}, {SurfaceID: "s2"}, {PanelID: "pn1"}, {SurfaceID: "s1", PanelID: "pn1", ThreadID: "t1"},
}

var people = []person{
	{"u_1", twinrail.Audience{}, []twinrail.Channel{twinrail.Commit, twinrail.Artifact}},
	{"u_2", twinrail.Audience{SurfaceID: "s1"}, []twinrail.Channel{twinrail.Commit}},
	{"u_3", twinrail.Audience{SurfaceID: "s1", PanelID: "pn1", ThreadID: "t1"}, []twinrail.Channel{twinrail.Commit, twinrail.Artifact}},
	{"u_4", twinrail.Audience{SurfaceID: "s2", ProjectionID: "pr1"}, []twinrail.Channel{twinrail.Artifact}},
}

// op is a step of a schedule.
type op struct {
	kind   string // append, elsewhere, next, reopen
	batch  []message
	person int
	max    int
	from   string // of a reopen: "", earliest, or "cursor" for where it was
	settle bool   // let the hubs come to rest after it
}

func drawOps(t *rapid.T) []op {
	n := 0
	message := rapid.Custom(func(t *rapid.T) message {
		n++
		return message{
			id:       fmt.Sprintf("e%d", n),
			channel:  rapid.SampledFrom([]twinrail.Channel{twinrail.Commit, twinrail.Artifact}).Draw(t, "channel"),
			audience: rapid.SampledFrom(audiences).Draw(t, "audience"),
			to:       rapid.SampledFrom([][]string{nil, nil, {"u_1"}, {"u_2", "u_3"}}).Draw(t, "to"),
		}
	})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		o := op{
			kind:   rapid.SampledFrom([]string{"append", "append", "elsewhere", "next", "next", "next", "reopen"}).Draw(t, "kind"),
			settle: rapid.Bool().Draw(t, "settle"),
		}
		switch o.kind {
		case "append", "elsewhere":
			o.batch = rapid.SliceOfN(message, 1, 6).Draw(t, "batch")
		case "reopen":
			o.from = rapid.SampledFrom([]string{"cursor", "cursor", "cursor", "", twinrail.CursorEarliest}).Draw(t, "from")
			fallthrough
		default:
			o.person = rapid.IntRange(0, len(people)-1).Draw(t, "person")
			o.max = rapid.SampledFrom([]int{1, 500, 2000, large}).Draw(t, "max")
		}
		return o
	}), 1, 60).Draw(t, "ops")
}

// rights are what the people and the publishers of the model may do.
type rights struct {
	readers []auth.Reader
	writers writers
	// The stream next door, of which nobody sees anything.
	elsewhere auth.Reader
	neighbour writers
}

// TestTranscripts has every person read one log through hubs with different
// windows and budgets, at whatever pace the schedule says: all see the same bytes,
// and these are the log's, filtered.
func TestTranscripts(t *testing.T) {
	may := rights{
		writers: newWriters(t, "c1", audiences), neighbour: newWriters(t, "c2", audiences), elsewhere: people[0].reader(t, "c2"),
	}
	for _, p := range people {
		may.readers = append(may.readers, p.reader(t, "c1"))
	}
	rapid.Check(t, func(rt *rapid.T) {
		ops := drawOps(rt)
		var err error
		synctest.Test(t, func(*testing.T) { err = runTranscripts(may, ops) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func runTranscripts(may rights, ops []op) error {
	log := &fanout{Journal: journal.NewMemory(journal.MemoryOptions{Stride: 2})}
	log.Journal.Notify(log.notify)
	model := &transcriptModel{}
	var views []*view
	for _, window := range transcriptWindows {
		views = append(views, newView(log, may, window, 0))
	}
	for _, budget := range transcriptBudgets {
		views = append(views, newView(log, may, large, budget))
	}
	for _, v := range views {
		defer v.close()
		if err := errors.Join(v.open(), v.openElsewhere()); err != nil {
			return err
		}
	}
	want := make([]wanted, len(people))
	for _, o := range ops {
		if o.kind == "append" {
			if err := model.append(log, may.writers, o.batch); err != nil {
				return err
			}
		}
		if o.kind == "elsewhere" {
			if err := new(transcriptModel).append(log, may.neighbour, o.batch); err != nil {
				return err
			}
		}
		if o.kind == "reopen" && o.from != "cursor" {
			// What it had not read by then depends on the window, so it reads up
			// first; from here on the same follows for all.
			synctest.Wait()
			for _, v := range views {
				if err := v.drain(o.person); err != nil {
					return err
				}
			}
			want[o.person].settle(model, people[o.person], o.from)
		}
		for _, v := range views {
			if err := v.do(o); err != nil {
				return fmt.Errorf("window %d, budget %d: %w", v.window, v.budget, err)
			}
		}
		if o.settle {
			synctest.Wait()
		}
	}
	synctest.Wait()
	for i, p := range people {
		want[i].settle(model, p, "")
		for _, v := range views {
			if err := v.drain(i); err != nil {
				return fmt.Errorf("window %d, budget %d: %w", v.window, v.budget, err)
			}
			if got := v.transcripts[i]; !bytes.Equal(got, want[i].transcript) {
				return fmt.Errorf("window %d, budget %d: %s saw\n%s\nwant\n%s", v.window, v.budget, p.actor, got, want[i].transcript)
			}
		}
	}
	return nil
}

// transcriptModel is the log as the publishers know it.
type transcriptModel struct {
	messages []message
	lines    [][]byte // what encode makes of each
}

func (m *transcriptModel) append(j journal.Journal, w writers, batch []message) error {
	recs := make([]journal.Record, len(batch))
	for i, msg := range batch {
		recs[i] = w.record(msg)
	}
	results, err := j.Append(context.Background(), recs, journal.Expect{})
	if err != nil {
		return err
	}
	for i, r := range results {
		m.messages = append(m.messages, batch[i])
		m.lines = append(m.lines, encode(twinrail.CanvasStream, &journal.Entry{Stored: recs[i].Stored(), Prev: r.Prev, Cursor: r.Cursor}))
	}
	return nil
}

// wanted is what one person is to see, and up to where in the log it was added.
type wanted struct {
	transcript []byte
	next       int
}

// settle adds what is in the log by now, and goes on from where it says.
func (w *wanted) settle(m *transcriptModel, p person, from string) {
	for i := w.next; i < len(m.messages); i++ {
		if m.messages[i].meantFor(p) {
			w.transcript = append(w.transcript, m.lines[i]...)
		}
	}
	w.next = len(m.messages)
	if from == twinrail.CursorEarliest {
		w.next = 0
	}
}

// view is the people at a hub with one window and budget.
type view struct {
	window      int
	budget      int
	hub         *hub.Hub
	may         rights
	subs        []*hub.Sub
	transcripts [][]byte
}

func newView(log journal.Journal, may rights, window, budget int) *view {
	return &view{
		window: window, budget: budget, may: may,
		hub: hub.New(log, hub.Options{Window: window, Budget: budget, Encode: encode}),
	}
}

func (v *view) open() error {
	v.subs, v.transcripts = make([]*hub.Sub, len(people)), make([][]byte, len(people))
	for i := range people {
		if err := v.subscribe(i, hub.From{}); err != nil {
			return err
		}
	}
	return nil
}

// openElsewhere has somebody next door, so that this takes of the budget.
func (v *view) openElsewhere() error {
	sub, _, err := v.hub.Subscribe(context.Background(), v.may.elsewhere, hub.From{}, func() {})
	if err == nil {
		v.subs = append(v.subs, sub)
	}
	return err
}

func (v *view) close() {
	for _, s := range v.subs {
		if s != nil {
			s.Close()
		}
	}
}

func (v *view) subscribe(i int, from hub.From) error {
	sub, start, err := v.hub.Subscribe(context.Background(), v.may.readers[i], from, func() {})
	if err != nil {
		return err
	}
	v.subs[i] = sub
	if start.Reset != nil || start.Resumed != (from.Cursor != "" && from.Cursor != twinrail.CursorEarliest) {
		return fmt.Errorf("subscribing %q gave %+v", from.Cursor, start)
	}
	return nil
}

func (v *view) do(o op) error {
	switch o.kind {
	case "next":
		_, err := v.read(o.person, o.max)
		return err
	case "reopen":
		old := v.subs[o.person]
		defer old.Close()
		from := o.from
		if from == "cursor" {
			from = old.Cursor().String()
		}
		return v.subscribe(o.person, hub.From{Cursor: from})
	}
	return nil
}

func (v *view) read(i, max int) (parked bool, err error) {
	b, err := v.subs[i].Next(context.Background(), nil, max)
	if err != nil {
		return false, err
	}
	if b.Reset != nil {
		return false, fmt.Errorf("a reset where all is retained: %+v", *b.Reset)
	}
	for _, it := range b.Items {
		v.transcripts[i] = append(v.transcripts[i], it.Wire...)
	}
	return b.Parked, nil
}

func (v *view) drain(i int) error {
	for range 10_000 {
		if parked, err := v.read(i, large); parked || err != nil {
			return err
		}
	}
	return errors.New("never parked")
}

// fanout lets several hubs follow one journal.
type fanout struct {
	journal.Journal
	fns []func(key string, last uint64)
}

func (f *fanout) Notify(fn func(key string, last uint64)) { f.fns = append(f.fns, fn) }

func (f *fanout) notify(key string, last uint64) {
	for _, fn := range f.fns {
		fn(key, last)
	}
}
