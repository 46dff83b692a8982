package server

import (
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/disk"
)

// restart starts a server over the journal in dir; stop ends both.
func restart(t *testing.T, dir string) (r *rig, stop func()) {
	t.Helper()
	j, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r = newRig(t, func(o *Options) { o.Journal = j })
	return r, func() {
		r.server.Close()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRestart has clients of both rails come back to a server that was started
// anew over the same log, and to one whose log was lost.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	r, stop := restart(t, dir)
	canvas, thread := r.commits(0, 5), r.chats(0, 5)
	r.commits(5, 10)
	r.chats(5, 10)
	kept := r.publish(`{"id":"kept","channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":10}`)[0]
	stop()

	r, stop = restart(t, dir)
	c := r.tail(canvasPath, "Last-Event-ID", canvas.Cursor)
	if o := c.open(); !o.Resumed || o.Head != kept.Cursor {
		t.Errorf("open %+v", o)
	}
	events := c.toLive()
	p := r.peer()
	if joined := p.join("a", `,"after":"`+thread.Cursor+`"`); !*joined.Resumed {
		t.Errorf("joined %+v", joined)
	}
	if got := dataOf(p.events("a", 5)); got != count(5, 10) {
		t.Errorf("the thread goes on with %s", got)
	}
	p.want(twinrail.OpLive)
	if again := r.publish(`{"id":"kept","channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":10}`)[0]; !again.Duplicate || again.Cursor != kept.Cursor {
		t.Errorf("published again: %+v", again)
	}
	r.commits(11, 13)
	events = append(events, c.events(2)...)
	if got := dataOf(events); got != count(5, 13) {
		t.Errorf("the canvas goes on with %s", got)
	}
	checkChain(t, events, canvas.Seq)
	stop()

	r, stop = restart(t, t.TempDir())
	defer stop()
	r.commits(0, 20)
	if o := r.tail(canvasPath, "Last-Event-ID", canvas.Cursor).open(); o.Resumed || o.Reason != twinrail.CodeCursorUnknown {
		t.Errorf("over another log: %+v", o)
	}
	p = r.peer()
	if joined := p.join("a", `,"after":"`+thread.Cursor+`"`); *joined.Resumed || joined.Reason != twinrail.CodeCursorUnknown {
		t.Errorf("over another log: %+v", joined)
	}
}
