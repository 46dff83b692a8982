package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// outLimit is how many bytes of answers may wait for a client that asks but does
// not read, before its next frame is left unread too.
const outLimit = 64 << 10

var wsReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// protocolError ends a connection for a violation of RFC 6455, with the close
// code that section 7.4.1 has for it.
type protocolError struct {
	close  ws.StatusCode
	detail string
}

func (e *protocolError) Error() string { return e.detail }

// readable reads the frames that have come, and then goes back to rest. A frame
// that has begun must be whole within two heartbeats, and so must a message: what
// has come of it is held.
func (c *wsConn) readable() {
	br := wsReaders.Get().(*bufio.Reader)
	br.Reset(c.link)
	defer func() {
		br.Reset(nil)
		wsReaders.Put(br)
	}()
	for {
		left := 2 * c.server.opts.Heartbeat
		if c.begun != 0 {
			left -= time.Duration(c.server.engine.now() - c.begun)
		}
		// A failure here is one of the connection, which the read reports.
		_ = c.link.nc.SetReadDeadline(time.Now().Add(left))
		if err := c.readFrame(br); err != nil {
			c.readFailed(err)
			return
		}
		if c.ended() || !c.waitForRoom() {
			return
		}
		if br.Buffered() == 0 {
			break
		}
	}
	_ = c.link.nc.SetReadDeadline(time.Time{})
	c.server.engine.watcher.watch(c.link)
}

// readFailed ends the connection in the way that the error asks for.
func (c *wsConn) readFailed(err error) {
	var protocol *protocolError
	var e *twinrail.Error
	switch {
	case errors.As(err, &protocol):
		c.finish(&wsEnding{err: twinrail.Errorf(twinrail.CodeBadFrame, "", "%s", protocol.detail), close: int(protocol.close)})
	case errors.As(err, &e):
		c.fail(e)
	case errors.Is(err, errEnded):
		// Said already.
	case isTimeout(err):
		c.fail(&twinrail.Error{Code: twinrail.CodeHeartbeatLost})
	default:
		c.link.close(errPeerGone)
	}
}

// errEnded says that how the connection ends has been decided.
var errEnded = errors.New("the connection has ended")

// waitForRoom waits until the answers so far have gone out, if they are many. It
// reports whether the connection goes on.
func (c *wsConn) waitForRoom() bool {
	c.mu.Lock()
	if len(c.out) < outLimit || c.link.ended.Load() {
		c.mu.Unlock()
		return true
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.mu.Unlock()
	// The writer is bounded by its own deadline, and closes the link, which ends
	// this wait, when it gives up.
	<-drained
	return !c.ended()
}

// readFrame reads one frame, and handles it where it completes a message.
func (c *wsConn) readFrame(br *bufio.Reader) error {
	h, err := readHeader(br)
	if err != nil {
		return err
	}
	c.heard()
	if err := c.takeFrame(); err != nil {
		return err
	}
	state := ws.StateServerSide
	if c.begun != 0 {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return &protocolError{ws.StatusProtocolError, err.Error()}
	}
	if h.OpCode.IsControl() {
		return c.readControl(br, h)
	}
	if h.OpCode == ws.OpBinary {
		return &protocolError{ws.StatusUnsupportedData, "frames are JSON text"}
	}
	if limit := int64(c.server.opts.MaxFrame); h.Length > limit-int64(len(c.message)) {
		return twinrail.Errorf(twinrail.CodeTooLarge, "frame", "more than %d bytes", limit)
	}
	var payload io.Reader = br
	if !h.Fin || c.begun != 0 || h.Length > int64(br.Buffered()) {
		payload = heldPayload{br, c}
	}
	if c.message, err = appendPayload(c.message, payload, h); err != nil {
		return err
	}
	if !h.Fin {
		if c.begun == 0 {
			c.begun = c.server.engine.now()
		}
		return nil
	}
	message := c.message
	c.message, c.begun = nil, 0
	c.letGo()
	if !utf8.Valid(message) {
		return &protocolError{ws.StatusInvalidFramePayloadData, "text that is not UTF-8"}
	}
	if c.ended() {
		return errEnded // while the message was on its way
	}
	return c.handle(message)
}

// readHeader reads a frame's header. Its length must be in the shortest of the
// three forms, RFC 6455 section 5.2.
func readHeader(br *bufio.Reader) (ws.Header, error) {
	start, err := br.Peek(2)
	if err != nil {
		return ws.Header{}, err
	}
	form := start[1] &^ wsMask
	h, err := ws.ReadHeader(br)
	switch {
	case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected),
		err == nil && form == wsLen16 && h.Length <= wsMaxLen,
		err == nil && form == wsLen64 && h.Length < 1<<16:
		return h, &protocolError{ws.StatusProtocolError, "malformed frame header"}
	}
	return h, err
}

// appendPayload appends a frame's payload, unmasked. Memory is taken as the bytes
// come, not as the header announces them.
func appendPayload(dst []byte, r io.Reader, h ws.Header) ([]byte, error) {
	from := len(dst)
	buf := bytes.NewBuffer(dst)
	n, err := io.Copy(buf, io.LimitReader(r, h.Length))
	if err != nil {
		return nil, err
	}
	if n < h.Length {
		return nil, io.ErrUnexpectedEOF
	}
	dst = buf.Bytes()
	ws.Cipher(dst[from:], h.Mask, 0)
	return dst, nil
}

// readControl answers a control frame, RFC 6455 section 5.5.
func (c *wsConn) readControl(br *bufio.Reader, h ws.Header) error {
	payload, err := appendPayload(nil, br, h)
	if err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpPing:
		c.mu.Lock()
		c.out = append(appendWSHeader(c.out, wsPong, len(payload)), payload...)
		c.mu.Unlock()
		c.link.kickNow()
	case ws.OpClose:
		return c.readClose(payload)
	}
	return nil
}

// readClose answers a close frame with its own code, RFC 6455 section 5.5.1.
func (c *wsConn) readClose(payload []byte) error {
	echo := &wsEnding{echo: true}
	switch {
	case len(payload) == 1:
		return &protocolError{ws.StatusProtocolError, "a close frame of one byte"}
	case len(payload) > 1:
		code, reason := ws.ParseCloseFrameData(payload)
		if !utf8.ValidString(reason) {
			return &protocolError{ws.StatusInvalidFramePayloadData, "a close reason that is not UTF-8"}
		}
		if !validCloseCode(int(code)) {
			return &protocolError{ws.StatusProtocolError, "a close code that must not be sent"}
		}
		echo.close = int(code)
	}
	c.finish(echo)
	return errEnded
}

// validCloseCode reports whether an endpoint may send code: RFC 6455 section 7.4
// and the codes that were registered since.
func validCloseCode(code int) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
