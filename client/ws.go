package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/twinrail/twinrail"
)

// A follower has one subscription on its WebSocket, under this name, and these
// references on its frames.
const (
	subName     = "s"
	joinRef     = "join"
	resumeRef   = "resume"
	presenceRef = "presence"
	authRef     = "auth"
)

// wsConn is one connection of the WS rail.
type wsConn struct {
	f    *follower
	conn *websocket.Conn
	dog  *watchdog

	connectionID string
	sessionID    string
	resuming     bool           // a resume was sent and is not answered yet
	told         *ResponseError // the error frame that announced a close
	comeBack     time.Duration  // what a drain frame asked for
	keepalive    sync.WaitGroup
	renewal      renewal
}

// followWS is one connection of the WS rail. It returns why it ended.
func (f *follower) followWS(ctx context.Context) error {
	dog, ctx, cancel := newWatchdog(ctx, f.c.silence)
	defer cancel()
	w := &wsConn{f: f, dog: dog, renewal: renewal{f: f, token: f.token}}
	if err := w.dial(ctx, f.token); err != nil {
		return orCause(ctx, err)
	}
	defer w.renewal.end()
	defer w.keepalive.Wait()
	defer cancel()
	defer w.conn.CloseNow()
	reading, stopReading := w.farewell(ctx)
	defer stopReading()

	err := w.begin(ctx)
	for err == nil {
		err = w.readFrame(ctx, reading)
	}
	if errors.Is(err, errBroken) {
		cancel() // says farewell; what still comes is passed over
		for w.readFrame(ctx, reading) == nil {
		}
	}
	return orCause(ctx, err)
}

func (w *wsConn) dial(ctx context.Context, token string) error {
	c, routing := w.f.c, w.f.routing
	w.dog.start()
	conn, resp, err := websocket.Dial(ctx, c.endpoint(twinrail.PathWS, nil), &websocket.DialOptions{
		HTTPClient:   c.stream,
		HTTPHeader:   header(token, twinrail.Routing{TenantID: routing.TenantID, Env: routing.Env}),
		Subprotocols: []string{twinrail.Subprotocol},
	})
	w.dog.stop()
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return responseError(resp)
		}
		return fmt.Errorf("client: no connection: %w", err)
	}
	if conn.Subprotocol() != twinrail.Subprotocol {
		_ = conn.CloseNow()
		return final{fmt.Errorf("client: the server does not speak %s: is the URL Twinrail's?", twinrail.Subprotocol)}
	}
	conn.SetReadLimit(int64(c.maxMessage))
	w.conn = conn
	return nil
}

func (w *wsConn) join(ctx context.Context) error {
	routing := w.f.routing
	return w.write(ctx, &twinrail.ClientFrame{
		Op: twinrail.OpJoin, Ref: joinRef, Sub: subName,
		Routing: &routing, Channels: w.f.options.Channels, After: w.f.cursor, Presence: w.f.options.Presence,
	})
}

// write is safe to call concurrently. A server that takes nothing is as dead as
// one that says nothing.
func (w *wsConn) write(ctx context.Context, frame *twinrail.ClientFrame) error {
	data, err := json.Marshal(frame)
	if err != nil {
		return final{err}
	}
	ctx, cancel := context.WithTimeout(ctx, w.f.c.silence)
	defer cancel()
	return w.conn.Write(ctx, websocket.MessageText, data)
}

// farewellTime bounds how long a clean close may take.
const farewellTime = time.Second

// farewell returns the context to read in. It outlives ctx by a clean close: the
// others see a follower that is told to end leave at once, and one that is cut
// only after a grace. The function that it returns ends it.
func (w *wsConn) farewell(ctx context.Context) (context.Context, func()) {
	reading, cut := context.WithCancel(context.WithoutCancel(ctx))
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		defer cut()
		if errors.Is(context.Cause(ctx), errSilent) {
			return
		}
		defer time.AfterFunc(farewellTime, cut).Stop()
		_ = w.conn.Close(websocket.StatusNormalClosure, "")
	})
	return reading, func() {
		if !stop() {
			<-said
		}
		cut()
	}
}

// readFrame reads a frame and, unless ctx has ended meanwhile, takes it.
func (w *wsConn) readFrame(ctx, reading context.Context) error {
	w.dog.start()
	kind, r, err := w.conn.Reader(reading)
	w.dog.stop()
	if err != nil {
		return w.closed(err)
	}
	data, err := io.ReadAll(w.dog.reader(r))
	if err != nil {
		return w.closed(err)
	}
	if ctx.Err() != nil {
		return nil
	}
	if kind != websocket.MessageText {
		return final{errors.New("client: the server sent a binary message")}
	}
	return decodeAnd(data, func(frame twinrail.ServerFrame) error {
		return w.take(ctx, &frame)
	})
}

func (w *wsConn) take(ctx context.Context, frame *twinrail.ServerFrame) error {
	switch frame.Op {
	case twinrail.OpWelcome:
		w.welcome(ctx, frame)
	case twinrail.OpPing:
		w.f.skipTo(frame.Cursors[subName])
		return w.write(ctx, &twinrail.ClientFrame{Op: twinrail.OpPong, Ref: frame.Ref})
	case twinrail.OpError:
		return w.takeError(ctx, frame)
	case twinrail.OpDrain:
		w.comeBack = time.Duration(frame.ReconnectAfterMS) * time.Millisecond
	case twinrail.OpResumed:
		return w.resumed(ctx, frame)
	case twinrail.OpJoined, twinrail.OpLeft, twinrail.OpAuthed:
		if frame.ResumeToken != "" && !w.resuming {
			w.f.resumeToken = frame.ResumeToken
		}
	case twinrail.OpAuthExpiring:
		w.renewal.start(ctx, w.renew)
	}
	if frame.Sub != subName {
		return nil
	}
	switch frame.Op {
	case twinrail.OpJoined:
		w.f.subscribed = true
		return w.open(&twinrail.Subscription{
			Cursor: frame.Cursor, Head: frame.Head, Resumed: frame.Resumed != nil && *frame.Resumed,
			Reason: frame.Reason, Members: frame.Members,
		})
	case twinrail.OpEvent:
		return w.f.giveEvent(frame.Event)
	case twinrail.OpLive:
		return w.f.give(Item{Kind: KindLive, Cursor: frame.Cursor})
	case twinrail.OpReset:
		return w.f.giveReset(twinrail.Reset{Reason: frame.Reason, Oldest: frame.Oldest, Head: frame.Head})
	case twinrail.OpPresence:
		return w.f.give(Item{Kind: KindPresence, Presence: &Presence{Leave: frame.Leave, Join: frame.Join, Update: frame.Update}})
	}
	return nil // of a later version of the protocol, or a hint
}

// open gives where the subscription starts, and who is present there.
func (w *wsConn) open(sub *twinrail.Subscription) error {
	err := w.f.giveOpen(twinrail.Open{
		ConnectionID: w.connectionID, Cursor: sub.Cursor, Head: sub.Head, Resumed: sub.Resumed, Reason: sub.Reason,
	})
	if err != nil || sub.Members == nil {
		return err
	}
	return w.f.give(Item{Kind: KindPresence, Presence: &Presence{Members: sub.Members}})
}

// renew extends the connection with a new token. What is answered changes
// nothing: a refusal is followed by the close, when the old token expires.
func (w *wsConn) renew(ctx context.Context, token string) error {
	return w.write(ctx, &twinrail.ClientFrame{Op: twinrail.OpAuth, Ref: authRef, Token: token})
}

// maxHeartbeat bounds what a server may call its heartbeat.
const maxHeartbeat = 10 * time.Minute

// welcome takes the server's heartbeat over: the client gives up after two of
// them and a margin of a quarter, so that it is back before the grace of its
// presence is over, and keeps itself alive in the server's eyes.
func (w *wsConn) welcome(ctx context.Context, frame *twinrail.ServerFrame) {
	if w.connectionID != "" || frame.HeartbeatMS <= 0 {
		return
	}
	w.connectionID, w.sessionID = frame.ConnectionID, frame.SessionID
	if w.f.resumeToken == "" {
		w.f.resumeToken, w.f.subscribed = frame.ResumeToken, false
	}
	heartbeat := min(time.Duration(frame.HeartbeatMS)*time.Millisecond, maxHeartbeat)
	w.dog.limit = heartbeat * 9 / 4
	w.keepalive.Go(func() { w.ping(ctx, heartbeat) })
}

// ping sends a ping with every heartbeat. The server takes any frame as a sign
// of life, and while the caller is busy with an event no pong is sent.
func (w *wsConn) ping(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if w.write(ctx, &twinrail.ClientFrame{Op: twinrail.OpPing}) != nil {
				return // the reader finds out why
			}
		}
	}
}

// takeError tells an answer to what the subscription needs from an announcement
// of the close, whose code will say what to do.
func (w *wsConn) takeError(ctx context.Context, frame *twinrail.ServerFrame) error {
	e := &ResponseError{
		RequestID: frame.RequestID,
		Err: &twinrail.Error{
			Code: frame.Code, Field: frame.Field, Detail: frame.Detail,
			RetryAfter: time.Duration(frame.RetryAfterMS) * time.Millisecond,
		},
	}
	if frame.Action != "" {
		e.Action = frame.Action
		w.told = e
		return nil
	}
	switch frame.Ref {
	case resumeRef:
		// The credential that was revoked is the one that the token was made with.
		if w.resuming && (refusesResume(frame.Code) || frame.Code == twinrail.CodeCredentialRevoked) {
			return w.joinAnew(ctx)
		}
	case joinRef, presenceRef:
	default:
		if frame.Ref != "" || frame.Sub != subName {
			return nil
		}
	}
	e.Action = actionOf(frame.Retry, frame.Code.Info().Status)
	return e
}

// closed says why the connection ended, given the error of reading from it.
func (w *wsConn) closed(err error) error {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return final{twinrail.Errorf(twinrail.CodeTooLarge, "", "%v", errTooLong)}
	}
	code := int(websocket.CloseStatus(err))
	e := w.told
	if e == nil {
		if code < 0 && w.comeBack == 0 {
			return fmt.Errorf("client: the connection was lost: %w", err)
		}
		e = &ResponseError{Action: twinrail.ActionResume, Err: &twinrail.Error{Code: twinrail.CodeDraining}}
		if code >= 0 {
			e.Err = twinrail.Errorf(codeOfClose(code), "", "the server closed with %d", code)
		}
	}
	if code >= 0 {
		e.Status, e.Action = code, twinrail.CloseAction(code)
	}
	e.Err.RetryAfter = max(e.Err.RetryAfter, w.comeBack)
	if w.resuming && refusesResume(e.Err.Code) {
		w.f.resumeToken, e.Action = "", twinrail.ActionResume
	}
	return e
}
