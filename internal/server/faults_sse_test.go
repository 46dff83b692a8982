package server

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"time"

	"github.com/twinrail/twinrail"
)

// followSSE is one connection of the SSE rail.
func (c *modelClient) followSSE(nc net.Conn) verdict {
	req, _ := http.NewRequest("GET", "http://twinrail.test"+canvasPath, nil)
	req.Header.Set("Authorization", "Bearer "+c.credential())
	if c.cursor != "" {
		req.Header.Set("Last-Event-ID", c.cursor)
	}
	var out bytes.Buffer
	_ = req.Write(&out)
	if _, err := nc.Write(out.Bytes()); err != nil {
		return c.lost(err)
	}
	br := bufio.NewReader(nc)
	var resp *http.Response
	err := c.read(nc, func() (err error) {
		resp, err = http.ReadResponse(br, req)
		return err
	})
	if err != nil {
		return c.lost(err)
	}
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp)
	}
	tail := &tail{t: c.w.t, resp: resp, br: bufio.NewReader(resp.Body)}
	for open := false; ; {
		var raw string
		if err := c.read(nc, func() (err error) {
			raw, err = tail.lines()
			return err
		}); err != nil {
			return c.lost(err)
		}
		b := parseBlock(c.w.t, raw)
		if b.retry != "" {
			c.retry, _ = time.ParseDuration(b.retry + "ms")
			if open {
				c.hear("`retry`")
			}
		}
		open = open || b.event == twinrail.SSEOpen
		if v := c.takeBlock(b); v.action != "" {
			return v
		}
	}
}

// takeBlock returns a verdict at the end of the stream.
func (c *modelClient) takeBlock(b block) verdict {
	if b.id != "" {
		c.cursor = b.id
	}
	switch b.event {
	case "":
	case twinrail.SSEOpen:
		var open twinrail.Open
		unmarshal(c.w.t, []byte(b.data), &open)
		c.opens(open.Resumed, open.Reason, "`Last-Event-ID`")
		c.note(func(n *modelNotes) { n.connectionID = open.ConnectionID })
	case twinrail.SSELive:
	case twinrail.SSEReset:
		var r twinrail.Reset
		unmarshal(c.w.t, []byte(b.data), &r)
		c.skip(r.Reason, r.Head)
	case twinrail.SSEAuthExpiring:
		c.hear("`auth_expiring`")
		if c.renews {
			c.renewSSE()
		}
	case twinrail.SSEEnd:
		var end twinrail.End
		unmarshal(c.w.t, []byte(b.data), &end)
		if !end.Reconnect {
			c.hear("`end` `%s`, `reconnect` false", end.Code)
			return verdict{action: twinrail.ActionStop}
		}
		c.hear("`end` `%s`", end.Code)
		if end.Code == twinrail.CodeCredentialExpired {
			return verdict{action: twinrail.ActionRefresh}
		}
		return cameOff
	default:
		c.take([]byte(b.data))
	}
	return verdict{}
}

// renewSSE gives the connection a new credential in place.
func (c *modelClient) renewSSE() {
	token := c.w.mint(c.actor, 0)
	path := twinrail.PathConnections + c.notes().connectionID + "/auth?" + appQuery
	if resp := c.w.server().do("POST", path, "", as(token)); resp.status != http.StatusOK {
		c.hear("%d to the renewal", resp.status)
		return
	}
	c.signIn(token)
	c.hear("200 to the new token")
}
