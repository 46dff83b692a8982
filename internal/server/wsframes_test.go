package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// header16 and header64 return the header of a masked final text frame with its
// length in that many bits, the mask being 0.
func header16(n uint16) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x81, 0x80 | 126}, n), 0, 0, 0, 0)
}

func header64(n uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, n), 0, 0, 0, 0)
}

// first returns a frame with its first byte changed.
func first(b byte, frame []byte) []byte { return append([]byte{b}, frame[1:]...) }

const pingFrame = `{"op":"ping","ref":"p"}`

// TestWSIllegalFrames sends what ends a connection, byte by byte as it is on the
// wire.
func TestWSIllegalFrames(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxFrame = 1000 })
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	opening := frame(false, ws.OpText, []byte(`{"op":`))
	type illegal struct {
		frames []byte
		code   twinrail.Code
		close  int
	}
	cases := map[string]illegal{
		"not JSON":            {text(`{"op":"ping"`), twinrail.CodeBadFrame, 4000},
		"empty":               {text(``), twinrail.CodeBadFrame, 4000},
		"two values":          {text(`{"op":"ping"}{"op":"ping"}`), twinrail.CodeBadFrame, 4000},
		"array":               {text(`[]`), twinrail.CodeBadFrame, 4000},
		"no op":               {text(`{}`), twinrail.CodeBadFrame, 4000},
		"unknown op":          {text(`{"op":"subscribe"}`), twinrail.CodeBadFrame, 4000},
		"server's op":         {text(`{"op":"welcome"}`), twinrail.CodeBadFrame, 4000},
		"unknown member":      {text(`{"op":"ping","x":1}`), twinrail.CodeBadFrame, 4000},
		"member of another":   {text(`{"op":"ping","sub":"a"}`), twinrail.CodeBadFrame, 4000},
		"member given twice":  {text(`{"op":"ping","op":"pong"}`), twinrail.CodeBadFrame, 4000},
		"member's type":       {text(`{"op":"ping","ref":1}`), twinrail.CodeBadFrame, 4000},
		"long ref":            {text(`{"op":"ping","ref":"` + strings.Repeat("x", 65) + `"}`), twinrail.CodeBadFrame, 4000},
		"binary":              {frame(true, ws.OpBinary, []byte(pingFrame)), twinrail.CodeBadFrame, 1003},
		"binary, fragmented":  {frame(false, ws.OpBinary, []byte(pingFrame)), twinrail.CodeBadFrame, 1003},
		"not UTF-8":           {text("{\"op\":\"ping\",\"ref\":\"\xff\"}"), twinrail.CodeBadFrame, 1007},
		"surrogate in UTF-8":  {text("{\"op\":\"ping\",\"ref\":\"\xed\xa0\x80\"}"), twinrail.CodeBadFrame, 1007},
		"cut UTF-8":           {join(frame(false, ws.OpText, []byte("\"\xc3")), frame(true, ws.OpContinuation, nil)), twinrail.CodeBadFrame, 1007},
		"unmasked":            {ws.MustCompileFrame(ws.NewTextFrame([]byte(pingFrame))), twinrail.CodeBadFrame, 1002},
		"unmasked ping":       {ws.MustCompileFrame(ws.NewPingFrame(nil)), twinrail.CodeBadFrame, 1002},
		"RSV1":                {first(0xc1, text(pingFrame)), twinrail.CodeBadFrame, 1002},
		"RSV2":                {first(0xa1, text(pingFrame)), twinrail.CodeBadFrame, 1002},
		"RSV3":                {first(0x91, text(pingFrame)), twinrail.CodeBadFrame, 1002},
		"RSV1 on a ping":      {first(0xc9, frame(true, ws.OpPing, nil)), twinrail.CodeBadFrame, 1002},
		"fragmented ping":     {frame(false, ws.OpPing, nil), twinrail.CodeBadFrame, 1002},
		"fragmented close":    {frame(false, ws.OpClose, nil), twinrail.CodeBadFrame, 1002},
		"large ping":          {frame(true, ws.OpPing, make([]byte, 126)), twinrail.CodeBadFrame, 1002},
		"large close":         {frame(true, ws.OpClose, append([]byte{3, 232}, make([]byte, 124)...)), twinrail.CodeBadFrame, 1002},
		"stray continuation":  {frame(true, ws.OpContinuation, []byte(pingFrame)), twinrail.CodeBadFrame, 1002},
		"text within message": {join(opening, text(pingFrame)), twinrail.CodeBadFrame, 1002},
		"close of one byte":   {frame(true, ws.OpClose, []byte{3}), twinrail.CodeBadFrame, 1002},
		"close not UTF-8":     {frame(true, ws.OpClose, []byte{3, 232, 0xff}), twinrail.CodeBadFrame, 1007},
		"length's top bit":    {header64(1 << 63), twinrail.CodeBadFrame, 1002},
		"length not minimal":  {append(header16(uint16(len(pingFrame))), pingFrame...), twinrail.CodeBadFrame, 1002},
		"nor in 64 bits":      {append(header64(uint64(len(pingFrame))), pingFrame...), twinrail.CodeBadFrame, 1002},
		"frame over limit":    {text(strings.Repeat(" ", 1001)), twinrail.CodeTooLarge, 4013},
		"huge frame's header": {header64(1 << 62), twinrail.CodeTooLarge, 4013},
		"message over limit": {join(frame(false, ws.OpText, make([]byte, 500)), frame(false, ws.OpContinuation, make([]byte, 500)),
			frame(true, ws.OpContinuation, make([]byte, 1))), twinrail.CodeTooLarge, 4013},
	}
	for _, op := range []ws.OpCode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases[fmt.Sprintf("opcode %d", op)] = illegal{frame(true, op, nil), twinrail.CodeBadFrame, 1002}
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		body := binary.BigEndian.AppendUint16(nil, code)
		cases[fmt.Sprintf("close code %d", code)] = illegal{frame(true, ws.OpClose, body), twinrail.CodeBadFrame, 1002}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := r.peer()
			p.t = t
			// What comes before is answered, what comes after is not.
			p.write(join(text(pingFrame), c.frames, text(pingFrame)))
			p.want(twinrail.OpPong)
			p.fails(c.code, c.close)
		})
	}
	eventually(t, "all connections are gone", func() bool { return r.metric(`twinrail_connections{rail="ws"}`) == 0 })
}

func TestWSCloseIsEchoed(t *testing.T) {
	r := newRig(t)
	for _, code := range []int{0, 1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4999} {
		p := r.peer()
		var body []byte
		if code != 0 {
			body = append(binary.BigEndian.AppendUint16(nil, uint16(code)), "goodbye"...)
		}
		p.write(frame(true, ws.OpClose, body))
		if got, reason := p.closed(); got != code || reason != "" {
			t.Errorf("%d was answered %d %q", code, got, reason)
		}
	}
	eventually(t, "all connections are gone", func() bool { return r.metric(`twinrail_connections{rail="ws"}`) == 0 })
	if n := r.metric(`twinrail_connections_closed_total{code="",rail="ws"}`); n != 10 {
		t.Errorf("%v were closed by their peers", n)
	}
}

// TestWSFragmentation sends one message in many frames, with control frames
// between these.
func TestWSFragmentation(t *testing.T) {
	r := newRig(t)
	p := r.peer()
	p.live("a")
	message := fmt.Sprintf(`{"op":"publish","ref":"\u00e9é","events":[%s]}`, chat(7))
	for i := range len(message) {
		op := ws.OpContinuation
		if i == 0 {
			op = ws.OpText
		}
		p.write(frame(i == len(message)-1, op, []byte{message[i]}))
		if i%20 == 3 {
			p.write(frame(true, ws.OpPing, []byte{byte(i)}))
			if f := p.raw(); f.Header.OpCode != ws.OpPong || string(f.Payload) != string([]byte{byte(i)}) {
				t.Fatalf("ping %d was answered %+v %q", i, f.Header, f.Payload)
			}
			p.write(frame(true, ws.OpPong, []byte("unasked")))
		}
	}
	if ack, events := p.published("a", 1); ack.Ref != "éé" || string(events[0].Data) != "7" {
		t.Errorf("ack %+v, event %s", ack, events[0].Data)
	}
}

// TestWSLengths sends and receives messages around the lengths at which the form
// of the header changes.
func TestWSLengths(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxEvent = 200_000 })
	p := r.peer()
	p.live("a")
	empty := `{"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":""}]}`
	for _, length := range []int{len(empty), 125, 126, 127, 65535, 65536, 150_000} {
		if length < len(empty) {
			continue
		}
		data := strings.Repeat("x", length-len(empty))
		p.write(text(strings.Replace(empty, `""`, `"`+data+`"`, 1)))
		if _, events := p.published("a", 1); string(events[0].Data) != `"`+data+`"` {
			t.Errorf("a message of %d bytes came back with %d bytes of data", length, len(events[0].Data))
		}
	}
}

// TestWSFramesInSegments cuts the same bytes in every way that TCP may: one by
// one, and all at once with the handshake.
func TestWSFramesInSegments(t *testing.T) {
	r := newRig(t)
	var all []byte
	for i := range 50 {
		all = append(all, text(fmt.Sprintf(`{"op":"ping","ref":"%d"}`, i))...)
	}
	check := func(p *peer) {
		t.Helper()
		for i := range 50 {
			if f := p.want(twinrail.OpPong); f.Ref != fmt.Sprint(i) {
				t.Fatalf("pong %q, want %d", f.Ref, i)
			}
		}
	}
	p := r.upgrade(wsPath, r.token, all...)
	p.want(twinrail.OpWelcome)
	check(p)
	p.write(all)
	check(p)
	for i := range all {
		p.write(all[i : i+1])
	}
	check(p)
}

// TestWSFlood has a client send and never read: the server stops to read from
// it, and then gives it up.
func TestWSFlood(t *testing.T) {
	r := newRig(t, func(o *Options) { o.WriteTimeout, o.FrameRate = time.Second, -1 })
	p := r.peer()
	flood := bytes.Repeat(frame(true, ws.OpPing, make([]byte, 125)), 1000)
	sent := 0
	for {
		_ = p.nc.SetWriteDeadline(time.Now().Add(patience))
		n, err := p.nc.Write(flood)
		sent += n
		if err != nil {
			if isTimeout(err) {
				t.Fatalf("still open after %d bytes: %v", sent, err)
			}
			break
		}
		if sent > 100<<20 {
			t.Fatalf("the server took %d bytes", sent)
		}
		if held := r.held(); held > 2*outLimit {
			t.Fatalf("the server holds %d bytes of answers", held)
		}
	}
	eventually(t, "the connection is given up", func() bool {
		return r.metric(`twinrail_connections_closed_total{code="too_slow",rail="ws"}`) == 1
	})
}

// held returns how many bytes of answers wait in all WebSockets.
func (r *rig) held() (n int) {
	r.server.mu.Lock()
	sessions := r.server.open()
	r.server.mu.Unlock()
	for _, s := range sessions {
		if c, ok := s.(*wsConn); ok {
			c.mu.Lock()
			n += len(c.out)
			c.mu.Unlock()
		}
	}
	return n
}

// trickle gives a byte at a time, and keeps how much room it was given for it.
type trickle struct{ left, room int }

func (r *trickle) Read(p []byte) (int, error) {
	r.room = max(r.room, len(p))
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	return copy(p, "x"), nil
}

// TestWSPayloadTakesMemoryAsItComes: what a header announces takes none.
func TestWSPayloadTakesMemoryAsItComes(t *testing.T) {
	r := &trickle{left: 100}
	if _, err := appendPayload(nil, r, ws.Header{Length: 1 << 20}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
	if r.room > 4<<10 {
		t.Errorf("for 100 bytes there is room for %d", r.room)
	}
}
