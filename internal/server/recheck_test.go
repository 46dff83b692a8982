package server

import (
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
)

// slow is a connection that is slow to go by what it is told: meanwhile, once,
// something happens.
type slow struct {
	connection
	ac        *auth.Context
	meanwhile func()
	gestures  bool
}

func (c *slow) context() *auth.Context { return c.ac }

func (c *slow) rail() twinrail.Rail { return twinrail.RailSSE }

func (c *slow) apply(flags *feature.Flags) {
	if happens := c.meanwhile; happens != nil {
		c.meanwhile = nil
		happens()
	}
	c.gestures = flags.GestureFanout
}

// TestRecheckMeets has flags change while those of before are being applied, as
// they are when two changes come at a time: the last one holds.
func TestRecheckMeets(t *testing.T) {
	r := newRig(t)
	p, hello := r.greet(r.token)
	ac := r.connection(hello.ConnectionID).context()
	c := &slow{ac: ac}
	for _, last := range []string{"true", "false"} {
		first := map[string]string{"true": "false", "false": "true"}[last]
		r.setFlag("gesture_fanout", first)
		c.meanwhile = func() {
			r.setFlag("gesture_fanout", last)
			r.server.recheck(c)
		}
		r.server.recheck(c)
		if want := last == "true"; c.gestures != want {
			t.Errorf("after %s and %s its gestures are %t", first, last, c.gestures)
		}
	}
	p.silent("a flag of the other rail")
}
