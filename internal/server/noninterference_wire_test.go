package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// niWire is one connection of a tenant's, and all that came over it.
type niWire struct {
	nc    net.Conn // nil for a stream of HTTP/2
	close func()
	actor int
	pongs bool          // it answers pings
	head  chan struct{} // closed once the head of the response has come, or none will
	pause gate          // holds up reading
	turn  chan struct{} // held by who writes; in a bubble, time stands still for who waits for a mutex

	mu     sync.Mutex
	rail   twinrail.Rail // "" until known, and for plain HTTP
	items  []niItem
	seen   int    // of items, what was put into the transcript
	ended  bool   // nothing more comes
	lastID string // of an SSE stream
	goOn   func() // where reading is held up
}

// niItem is one thing that came. Of the things in one lane the order counts; see
// received.
type niItem struct{ lane, text string }

const (
	laneWhole    = ""
	laneComments = "comments"
	lanePresence = "presence "
)

func (w *niWire) add(lane, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.items = append(w.items, niItem{lane, text})
}

func (w *niWire) write(b []byte) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	_ = w.nc.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err := w.nc.Write(b)
	return err
}

func (w *niWire) stopReading() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.goOn == nil {
		w.goOn = w.pause.close()
	}
}

func (w *niWire) resumeReading() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.goOn != nil {
		w.goOn()
	}
}

// open reports whether the wire is one of that rail, and goes on.
func (w *niWire) open(rail twinrail.Rail) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rail == rail && !w.ended
}

// read takes in all that comes.
func (w *niWire) read() {
	br := bufio.NewReader(w.nc)
	var err error
	switch head := w.readBlock(br, "\r\n"); {
	case strings.HasPrefix(head, "HTTP/1.1 101 "):
		err = w.begin(twinrail.RailWS, head, func() error { return w.readFrame(br) })
	case strings.Contains(head, "text/event-stream"):
		err = w.begin(twinrail.RailSSE, head, func() error { return w.readSSE(br) })
	default:
		// Where chunks are cut depends on sizes, which go with the content; but a
		// cut through a word would hide what that is.
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(head), br)), nil)
		var body []byte
		if err == nil {
			body, _ = io.ReadAll(resp.Body) // of what is missing the transcript tells
		}
		w.close()
		w.answer(head + string(body))
	}
	w.over(err)
}

// answer takes in an answer, or the head of one that goes on.
func (w *niWire) answer(text string) {
	w.add(laneWhole, text)
	close(w.head)
}

// over is called when nothing more comes, with why not if it is a rail.
func (w *niWire) over(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if err != nil {
		w.items = append(w.items, niItem{laneWhole, "the end"})
	}
}

func (w *niWire) begin(rail twinrail.Rail, head string, next func() error) error {
	w.mu.Lock()
	w.rail = rail
	w.mu.Unlock()
	w.answer(head)
	for {
		w.pause.pass()
		if err := next(); err != nil {
			return err
		}
	}
}

// readBlock reads lines up to one that has nothing before its end, with that.
func (w *niWire) readBlock(br *bufio.Reader, end string) string {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == end {
			return b.String()
		}
	}
}

// readSSE reads one block. Comments are kept aside: their time is drawn, up to
// 10 % off, so what was before and what after them is by chance. What they say of
// the cursor is what lastID has.
func (w *niWire) readSSE(br *bufio.Reader) error {
	block := w.readBlock(br, "\n")
	if block == "" {
		return io.EOF
	}
	lane := laneWhole
	if strings.HasPrefix(block, ":\n") {
		lane = laneComments
	}
	if _, rest, ok := strings.Cut("\n"+block, "\nid: "); ok {
		id, _, _ := strings.Cut(rest, "\n")
		w.mu.Lock()
		w.lastID = id
		w.mu.Unlock()
	}
	w.add(lane, block)
	return nil
}

// readFrame reads one frame.
func (w *niWire) readFrame(br *bufio.Reader) error {
	f, err := readServerFrame(br)
	if err != nil {
		return err
	}
	var s struct{ Op, Sub string }
	if f.Header.OpCode == ws.OpText {
		_ = json.Unmarshal(f.Payload, &s)
	}
	wire := fmt.Sprintf("[%x %t %d] %s", f.Header.OpCode, f.Header.Fin, f.Header.Length, f.Payload)
	switch s.Op {
	case twinrail.OpEvent, twinrail.OpLive, twinrail.OpReset:
		w.add("events "+s.Sub, wire)
	case twinrail.OpPresence:
		w.add(lanePresence+s.Sub, string(f.Payload))
	case twinrail.OpPing:
		w.add("pings", wire)
		if w.pongs {
			return w.write(text(`{"op":"pong"}`))
		}
	default:
		w.add(laneWhole, wire)
	}
	return nil
}

// received returns what came since the last call. Which of two goroutines of the
// server's is first is by chance, so an order is kept only
//
//   - on one connection, and there among answers, among the events of each
//     subscription, among pings, and in an SSE stream, but for its comments;
//   - of changes of presence only which there were, since those of one moment come
//     in one frame or in two. A connection that ends may or may not be told before
//     of who went in the same moment, so of that nothing is kept.
func (w *niWire) received() (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lanes := make(map[string][]string)
	for _, it := range w.items[w.seen:] {
		switch {
		case it.lane == laneComments, w.ended && strings.HasPrefix(it.lane, lanePresence):
		case strings.HasPrefix(it.lane, lanePresence):
			lanes[it.lane] = append(lanes[it.lane], changesIn(it.text)...)
			slices.Sort(lanes[it.lane])
		default:
			lanes[it.lane] = append(lanes[it.lane], it.text)
		}
	}
	w.seen = len(w.items)
	for lane, texts := range lanes {
		for i, text := range texts {
			lines = append(lines, fmt.Sprintf("%s %03d %s", lane, i, text))
		}
	}
	slices.Sort(lines)
	return lines
}

// changesIn returns what a presence frame says, change by change.
func changesIn(frame string) (changes []string) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal([]byte(frame), &f); err != nil {
		return []string{frame}
	}
	for name, value := range f {
		var members []json.RawMessage
		if name == "op" || name == "sub" || json.Unmarshal(value, &members) != nil {
			continue
		}
		for _, m := range members {
			changes = append(changes, name+" "+string(m))
		}
	}
	return changes
}

func niRequest(method, path, body string, h header) *http.Request {
	req, err := http.NewRequest(method, "http://twinrail.test"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	h.apply(req)
	return req
}

func upgrades(req *http.Request) bool { return req.Header.Get("Upgrade") != "" }

// niBytes returns a request as it goes over a connection of its own.
func niBytes(req *http.Request) []byte {
	req.Close = !upgrades(req)
	var out bytes.Buffer
	_ = req.Write(&out) // into memory
	return out.Bytes()
}
