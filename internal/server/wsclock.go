package server

import (
	"time"

	"github.com/twinrail/twinrail"
)

// tick does what is due by the clock: pings, the deadline for hearing of the
// client, and the credential's end.
func (c *wsConn) tick(now time.Time) time.Time {
	heartbeat := c.server.opts.Heartbeat
	silent := c.silence()
	deadline := now.Add(2*heartbeat - silent)
	expires := c.context().Principal().ExpiresAt()
	warn, over, next := c.lifetime.at(now, expires)
	switch {
	case over:
		c.fail(&twinrail.Error{Code: twinrail.CodeCredentialExpired})
		return now.Add(heartbeat)
	case silent >= 2*heartbeat:
		c.fail(&twinrail.Error{Code: twinrail.CodeHeartbeatLost})
		return now.Add(heartbeat)
	}
	if c.nextPing.IsZero() {
		c.nextPing = now.Add(heartbeat)
	} else if !now.Before(c.nextPing) {
		c.nextPing = now.Add(heartbeat)
		c.mu.Lock()
		c.pinging = true
		c.mu.Unlock()
		c.link.kickNow()
	}
	if warn {
		at := expires.UTC()
		c.say(&twinrail.ServerFrame{Op: twinrail.OpAuthExpiring, ExpiresAt: &at})
		c.link.kickNow()
	}
	return earlier(earlier(c.nextPing, deadline), next)
}

// silence returns for how long nothing has been heard of the client. While a
// publish of its is under way, it is the server that does not read.
func (c *wsConn) silence() time.Duration {
	c.mu.Lock()
	owing := c.owing
	c.mu.Unlock()
	if owing {
		c.heard()
	}
	return time.Duration(c.server.engine.now() - c.lastHeard.Load())
}
