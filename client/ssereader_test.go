package client

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	gosse "github.com/tmaxmax/go-sse"
	"pgregory.net/rapid"
)

// dispatched is what a browser would see of a stream.
type dispatched struct{ id, event, data string }

func readAll(r io.Reader) ([]dispatched, error) {
	reader := newSSEReader(r, 1<<16)
	var out []dispatched
	id := ""
	for {
		b, err := reader.next()
		if err != nil {
			return out, err
		}
		if b.id != "" {
			id = b.id
		}
		if b.hasData {
			out = append(out, dispatched{id, b.event, string(b.data)})
		}
	}
}

// The same streams read with another library give the same events.
func TestSSEReaderAgreesWithGoSSE(t *testing.T) {
	lines := rapid.SampledFrom([]string{
		"data: x", "data:x", "data", "data: ", "data:  two spaces", "data: {\"a\":1}", "event: commit", "event:live",
		"id: c1", "id:c2", "id: a\x00b", "retry: 10", "retry: x", ":", ": comment", "unknown: y", "", "", "",
	})
	ends := rapid.SampledFrom([]string{"\n", "\r\n", "\r"})
	rapid.Check(t, func(t *rapid.T) {
		end := ends.Draw(t, "end")
		stream := "data: first" + end + end
		for _, line := range rapid.SliceOfN(lines, 0, 40).Draw(t, "lines") {
			stream += line + end
		}
		if rapid.Bool().Draw(t, "mark") {
			stream = "\xEF\xBB\xBF" + stream
		}
		var want []dispatched
		for e, err := range gosse.Read(strings.NewReader(stream), nil) {
			if err != nil {
				t.Fatal(err)
			}
			// It also gives blocks without data, which are indistinguishable
			// from blocks of one empty data line: leave both out.
			if e.Data != "" {
				want = append(want, dispatched{e.LastEventID, e.Type, e.Data})
			}
		}
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(stream),
			"bytes": iotest.OneByteReader(strings.NewReader(stream)),
			"late":  iotest.DataErrReader(strings.NewReader(stream)),
		} {
			got, err := readAll(r)
			got = slices.DeleteFunc(got, func(d dispatched) bool { return d.data == "" })
			if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
				t.Fatalf("%s: %q gives %q and %v, want %q", name, stream, got, err, want)
			}
		}
	})
}

func TestSSEReader(t *testing.T) {
	r := newSSEReader(strings.NewReader("retry: 2500\n\n: hb\nid: c1\n\ndata\n\nevent: x\ndata: a\ndata: b\r\n\r\ndata: unfinished\n"), 100)
	for i, want := range []sseBlock{
		{retry: 2500 * time.Millisecond}, {id: "c1"}, {hasData: true, data: []byte("")}, {event: "x", hasData: true, data: []byte("a\nb")},
	} {
		got, err := r.next()
		if err != nil || got.id != want.id || got.event != want.event || got.retry != want.retry || got.hasData != want.hasData || !bytes.Equal(got.data, want.data) {
			t.Errorf("block %d is %+v, %v, want %+v", i, got, err, want)
		}
	}
	if b, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("an unfinished block came out: %+v, %v", b, err)
	}
}

// A block is handed on as soon as its blank line is there, however it ends.
func TestSSEReaderDoesNotWait(t *testing.T) {
	for _, stream := range []string{"data: x\n\n", "data: x\r\n\r\n", "data: x\r\r"} {
		stuck := errors.New("read on")
		r := newSSEReader(io.MultiReader(strings.NewReader(stream), iotest.ErrReader(stuck)), 100)
		if b, err := r.next(); err != nil || string(b.data) != "x" {
			t.Errorf("%q: %+v, %v", stream, b, err)
		}
	}
}

func TestSSEReaderBounds(t *testing.T) {
	for stream, want := range map[string]error{
		"data: " + strings.Repeat("x", 94) + "\n\n":       nil,
		"data: " + strings.Repeat("x", 95) + "\n\n":       errTooLong,
		strings.Repeat("data: xxxx\n", 11) + "\n":         errTooLong,
		strings.Repeat(":\n", 1000) + "data: x\n\n":       nil,
		strings.Repeat(": hb\n\n", 1000) + "data: x\n\n":  nil,
		"data: x\n" + strings.Repeat("unknown: y\n", 100): errTooLong,
	} {
		if _, err := newSSEReader(strings.NewReader(stream), 100).next(); !errors.Is(err, want) {
			t.Errorf("%.40q of %d bytes: %v, want %v", stream, len(stream), err, want)
		}
	}
}

func TestBackoffIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Base: time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "base")),
			Max:  time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "max")),
		}
		failures := rapid.IntRange(0, 1<<20).Draw(t, "failures")
		floor := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "floor"))
		got := b.wait(failures, floor)
		least, most := min(floor, maxFloor), min(floor, maxFloor)+b.Max
		if failures < 10 {
			most = min(most, least+b.Base<<failures)
		}
		if got < least || got > most {
			t.Fatalf("%+v waits %v after %d failures and %v, want %v to %v", b, got, failures, floor, least, most)
		}
	})
}
