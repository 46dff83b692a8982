package test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// keepTalking has the page's first WebSocket send on, whatever it hears. It is had by
// an answer of its to the server.
const keepTalking = `{
	const send = WebSocket.prototype.send
	WebSocket.prototype.send = function (data) {
		if (!globalThis.talking) {
			globalThis.talking = this
			setInterval(() => this.readyState === WebSocket.OPEN && send.call(this, '{"op":"ping"}'), 100)
		}
		send.call(this, data)
	}
}`

// TestExamplesAreNotHeard has the network swallow what the server says, and nothing
// else. Both examples give their silent WebSockets up and come back by resume, with
// nothing lost. The server hears of the page's that it comes back, so nobody sees
// it leave.
func TestExamplesAreNotHeard(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	x := startExamples(t, nil, "--heartbeat", heartbeat.String(), "--presence-grace", "1m")
	w := watch(t, x.gateway, thread("th1"))
	x.commit()
	x.say("before")
	x.caughtUp("before")
	x.do(keepTalking)
	var is bool
	eventually(t, "the page answers a ping", func() bool { x.eval("!!globalThis.talking", &is); return is })
	time.Sleep(3 * heartbeat) // more than it takes to give up one that is silent
	if log := x.pageLog(); strings.Contains(log, "lost") {
		t.Fatalf("the page has lost a connection that is well:\n%s", log)
	}

	x.network.hole(toClients)
	eventually(t, "the page gives its silent connection up", func() bool {
		return strings.Contains(x.pageLog(), "thread: lost, 1006")
	})
	if x.eval("talking.readyState === WebSocket.OPEN", &is); is {
		t.Error("the page has not closed the connection that it gave up")
	}
	x.network.renew()
	eventually(t, "the page has resumed", func() bool {
		return strings.Contains(x.pageLog(), "thread: resumed, after the cursor")
	})
	x.commit()
	x.say("after")
	x.caughtUp("after")
	gone := func(change string) bool { return !strings.HasPrefix(change, "update ") }
	if seen := w.seen(); slices.ContainsFunc(seen, gone) {
		t.Errorf("the others saw %q", seen)
	}
	if log := x.pageLog(); strings.Contains(log, "reset") || strings.Contains(log, "stopped") {
		t.Errorf("the page:\n%s", log)
	}
}
