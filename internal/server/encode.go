package server

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// encode returns an entry's bytes as the rail of its stream shares them: a whole
// SSE block for a canvas, and for a thread the event and the brace that closes
// the frame around it.
func encode(kind twinrail.Kind, e *journal.Entry) []byte {
	if kind == twinrail.CanvasStream {
		return appendSSEEntry(make([]byte, 0, len(e.Head)+len(e.Tail)+192), e)
	}
	return append(appendEvent(make([]byte, 0, len(e.Head)+len(e.Tail)+96), e), '}')
}

// appendEvent appends the JSON of an entry in its place.
func appendEvent(dst []byte, e *journal.Entry) []byte {
	dst = append(dst, e.Head...)
	dst = twinrail.AppendPosition(dst, e.Cursor, e.Prev)
	return append(dst, e.Tail...)
}

func appendSSEEntry(dst []byte, e *journal.Entry) []byte {
	dst = appendSSEID(dst, e.Cursor)
	dst = append(dst, "event: "...)
	dst = append(dst, e.Channel...)
	dst = append(dst, "\ndata: "...)
	dst = append(dst, e.Head...)
	dst = twinrail.AppendPosition(dst, e.Cursor, e.Prev)
	return append(appendSSEData(dst, e.Tail), "\n\n"...)
}

// appendSSEData appends b as data. JSON may hold line breaks between its tokens,
// which in a stream of lines must begin a data field anew; the client puts an LF
// for each, also for what was a CR.
func appendSSEData(dst, b []byte) []byte {
	for {
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(append(dst, b[:i]...), "\ndata: "...)
		if b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			i++
		}
		b = b[i+1:]
	}
}

func appendSSEID(dst []byte, c twinrail.Cursor) []byte {
	dst = append(dst, "id: "...)
	dst, _ = c.AppendText(dst) // never fails
	return append(dst, '\n')
}

// appendSSE appends one of the rail's own events.
func appendSSE(dst []byte, name string, data any) []byte {
	dst = append(append(append(dst, "event: "...), name...), "\ndata: "...)
	return append(append(dst, mustJSON(data)...), "\n\n"...)
}

// mustJSON marshals what is made here and always marshals.
func mustJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // of one byte that a client sent it would make six
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// The bits of a WebSocket frame's first two bytes, RFC 6455 section 5.2.
const (
	wsFin    = 0x80
	wsText   = 0x1
	wsClose  = 0x8
	wsPong   = 0xA
	wsMask   = 0x80 // in the second byte
	wsLen16  = 126
	wsLen64  = 127
	wsMaxLen = 125 // that fits in the second byte
)

// appendWSHeader appends the header of an unfragmented, unmasked frame.
func appendWSHeader(dst []byte, op byte, n int) []byte {
	dst = append(dst, wsFin|op)
	switch {
	case n <= wsMaxLen:
		return append(dst, byte(n))
	case n < 1<<16:
		return append(dst, wsLen16, byte(n>>8), byte(n))
	}
	dst = append(dst, wsLen64)
	for shift := 56; shift >= 0; shift -= 8 {
		dst = append(dst, byte(n>>shift))
	}
	return dst
}

// appendWSFrame appends a text frame that holds f.
func appendWSFrame(dst []byte, f *twinrail.ServerFrame) []byte {
	b := mustJSON(f)
	return append(appendWSHeader(dst, wsText, len(b)), b...)
}

// wsEventPrefix is what stands before the shared bytes of an event in the frames
// of one subscription.
func wsEventPrefix(sub string) []byte {
	return append(append([]byte(`{"op":"event","sub":`), mustJSON(sub)...), `,"event":`...)
}

func appendWSEvent(dst, prefix, event []byte) []byte {
	dst = appendWSHeader(dst, wsText, len(prefix)+len(event))
	return append(append(dst, prefix...), event...)
}

func milliseconds(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
