package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// The name of a model client's one subscription, and what it is present with.
const (
	modelSub   = "s"
	modelState = `{"here":true}`
)

// modelWS is one connection of a model client to the WS rail.
type modelWS struct {
	*modelClient
	nc   net.Conn
	said *twinrail.ServerFrame // the error frame that announced a close
	stay time.Duration         // what a drain frame asked for
}

// followWS is one connection of the WS rail.
func (c *modelClient) followWS(nc net.Conn) verdict {
	if _, err := nc.Write(handshake(wsPath, c.credential())); err != nil {
		return c.lost(err)
	}
	br := bufio.NewReader(nc)
	var resp *http.Response
	err := c.read(nc, func() (err error) {
		resp, err = http.ReadResponse(br, nil)
		return err
	})
	if err != nil {
		return c.lost(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return c.refused(resp)
	}
	w := &modelWS{modelClient: c, nc: nc}
	gone := make(chan struct{})
	var pings sync.WaitGroup
	pings.Go(func() { w.ping(gone) })
	defer pings.Wait()
	defer func() { _ = nc.Close() }()
	defer close(gone)
	for {
		var f ws.Frame
		if err := c.read(nc, func() (err error) {
			f, err = readServerFrame(br)
			return err
		}); err != nil {
			return w.lostWS(err)
		}
		if v := w.takeFrame(f); v.action != "" {
			return v
		}
	}
}

// ping keeps the connection alive in the server's eyes, also while the client is
// busy.
func (w *modelWS) ping(gone <-chan struct{}) {
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-gone:
			return
		case <-ticker.C:
			w.say(twinrail.ClientFrame{Op: twinrail.OpPing})
		}
	}
}

// say sends a frame. That it could not be sent, reading finds out.
func (w *modelWS) say(f twinrail.ClientFrame) {
	b, err := json.Marshal(f)
	if err != nil {
		w.failed(err)
	}
	_, _ = w.nc.Write(text(string(b)))
}

// lostWS is lost, but what the server asked for holds.
func (w *modelWS) lostWS(err error) verdict {
	v := w.lost(err)
	v.floor = w.stay
	return v
}

// takeFrame returns a verdict at the end of the connection.
func (w *modelWS) takeFrame(f ws.Frame) verdict {
	if f.Header.OpCode == ws.OpClose {
		code, _ := ws.ParseCloseFrameData(f.Payload)
		w.hear("close %d", code)
		v := verdict{action: twinrail.CloseAction(int(code)), floor: w.stay}
		if w.said != nil {
			v.floor = max(v.floor, time.Duration(w.said.RetryAfterMS)*time.Millisecond)
		}
		return v
	}
	var s twinrail.ServerFrame
	unmarshal(w.w.t, f.Payload, &s)
	switch s.Op {
	case twinrail.OpEvent:
		w.take(s.Event)
	case twinrail.OpLive:
		w.cursor = s.Cursor
	case twinrail.OpPing:
		if at := s.Cursors[modelSub]; at != "" {
			w.cursor = at
		}
		w.say(twinrail.ClientFrame{Op: twinrail.OpPong})
	case twinrail.OpReset:
		w.skip(s.Reason, s.Head)
	case twinrail.OpDrain:
		w.stay = time.Duration(s.ReconnectAfterMS) * time.Millisecond
		w.hear("`drain`")
	case twinrail.OpError:
		w.takeError(&s)
	default:
		w.takeSession(&s)
	}
	return verdict{}
}

// takeSession takes what is about the session.
func (w *modelWS) takeSession(s *twinrail.ServerFrame) {
	switch s.Op {
	case twinrail.OpWelcome:
		if w.resumeToken != "" {
			w.say(twinrail.ClientFrame{
				Op: twinrail.OpResume, Ref: twinrail.OpResume, ResumeToken: w.resumeToken,
				Cursors: map[string]string{modelSub: w.cursor},
			})
			return
		}
		w.join()
	case twinrail.OpJoined:
		w.resumeToken = s.ResumeToken
		if s.Reason == "" {
			w.cursor = s.Cursor
		}
		w.opens(*s.Resumed, s.Reason, "`join` with `after`")
	case twinrail.OpResumed:
		w.resumeToken = s.ResumeToken
		if len(s.Subs) != 1 || s.Subs[0].Code != "" {
			w.failed(fmt.Errorf("resumed %+v", s.Subs))
			return
		}
		w.opens(s.Subs[0].Resumed, s.Subs[0].Reason, "`resume`")
		// A restart of the server has lost it.
		w.say(twinrail.ClientFrame{Op: twinrail.OpPresence, Sub: modelSub, State: json.RawMessage(modelState)})
	case twinrail.OpAuthExpiring:
		w.hear("`auth_expiring`")
		if w.renews {
			token := w.w.mint(w.actor, 0)
			w.signIn(token)
			w.say(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: token})
		}
	case twinrail.OpAuthed:
		w.resumeToken = s.ResumeToken
		w.hear("`authed`")
	case twinrail.OpPong, twinrail.OpPresence:
	default:
		w.failed(errors.New("an unexpected " + s.Op))
	}
}

func (w *modelWS) join() {
	w.resumeToken = ""
	w.say(twinrail.ClientFrame{
		Op: twinrail.OpJoin, Sub: modelSub, Routing: &twinrail.Routing{ThreadID: "th1"},
		Channels: []twinrail.Channel{twinrail.Chat}, After: w.cursor, Presence: json.RawMessage(modelState),
	})
}

// takeError goes on without the session where that cannot be resumed.
func (w *modelWS) takeError(s *twinrail.ServerFrame) {
	switch {
	case s.Action != "":
		w.hear("`error` `%s`", s.Code)
		w.said = s
	case s.Ref == twinrail.OpResume:
		w.hear("`error` `%s` to `resume`", s.Code)
		w.join()
	default:
		w.failed(errors.New("an unexpected error " + string(s.Code)))
	}
}
