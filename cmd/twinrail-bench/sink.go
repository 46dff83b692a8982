package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
)

// childSink is many subscribers: it reads, counts, and checks that no event is
// missing or comes twice. It answers
//
//	dial ADDRESS TOKEN RAIL COUNT   once all are live
//	reset                           forgets what was counted
//	wait COUNT                      once so many came, or nothing more does:
//	                                how many, how many out of order, and the
//	                                median and the 99th percentile of their
//	                                delays in microseconds
func childSink([]string) error {
	s := &sink{}
	return serveLines(func(fields []string) (string, error) {
		switch fields[0] {
		case "dial":
			return s.dial(target{fields[1], fields[2]}, fields[3], fields[4])
		case "reset":
			s.reset()
			return "ok", nil
		case "wait":
			return s.wait(fields[1])
		}
		return own(fields)
	})
}

type sink struct {
	got, wrong atomic.Int64

	mu     sync.Mutex
	delays []float64
}

func (s *sink) dial(t target, rail, count string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	for range n {
		nc, br, err := s.dialOne(t, rail)
		if err != nil {
			return "", err
		}
		go s.read(nc, br)
	}
	return "ok", nil
}

func (s *sink) dialOne(t target, rail string) (net.Conn, *bufio.Reader, error) {
	nc, br, err := t.dial(twinrail.Rail(rail), "")
	if err == nil {
		err = untilLive(br)
	}
	return nc, br, err
}

func (s *sink) reset() {
	s.got.Store(0)
	s.wrong.Store(0)
	s.mu.Lock()
	s.delays = nil
	s.mu.Unlock()
}

var (
	seqMark  = []byte(`"seq":`)
	timeMark = []byte(`"time":"`)
)

// read counts the events of one connection. It looks for their seqs and times,
// which tells all it wants without parsing.
func (s *sink) read(nc net.Conn, br *bufio.Reader) {
	defer nc.Close()
	buf, err := br.Peek(br.Buffered())
	if err != nil {
		return
	}
	buf = append(make([]byte, 0, 64<<10), buf...)
	var last uint64
	for {
		if len(buf) == cap(buf) {
			return // no event is that large
		}
		n, err := nc.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		used := s.count(buf, &last)
		buf = buf[:copy(buf, buf[used:])]
	}
}

// count returns how many bytes it is done with: those before the last seq that
// is not followed by its time yet.
func (s *sink) count(b []byte, last *uint64) (used int) {
	now := time.Now()
	for {
		i := bytes.Index(b[used:], seqMark)
		if i < 0 {
			return max(used, len(b)-len(seqMark))
		}
		at := used + i + len(seqMark)
		j := bytes.Index(b[at:], timeMark)
		if j < 0 || at+j+len(timeMark)+len(twinrail.TimeFormat) > len(b) {
			return used + i
		}
		seq, _ := strconv.ParseUint(string(b[at:at+bytes.IndexByte(b[at:], ',')]), 10, 64)
		if *last != 0 && seq != *last+1 { // dense in the journals that are measured
			s.wrong.Add(1)
		}
		*last = seq
		at += j + len(timeMark)
		if seq%sampled == 0 {
			s.sample(now, b[at:at+len(twinrail.TimeFormat)])
		}
		s.got.Add(1)
		used = at + len(twinrail.TimeFormat)
	}
}

// sampled is of how many events one's delay is kept.
const sampled = 8

func (s *sink) sample(now time.Time, text []byte) {
	sent, err := time.Parse(twinrail.TimeFormat, string(text))
	if err != nil {
		s.wrong.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays = append(s.delays, float64(now.Sub(sent).Microseconds()))
}

func (s *sink) wait(count string) (string, error) {
	want, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return "", err
	}
	const patience = 50 // tenths of a second without anything new
	for quiet, before := 0, int64(0); quiet < patience && s.got.Load() < want; {
		time.Sleep(100 * time.Millisecond)
		if got := s.got.Load(); got != before {
			quiet, before = 0, got
		} else {
			quiet++
		}
	}
	time.Sleep(200 * time.Millisecond) // for what is there twice
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.delays)
	p99 := 0.0
	if n := len(s.delays); n > 0 {
		p99 = s.delays[n*99/100]
	}
	return fmt.Sprintf("%d %d %.0f %.0f", s.got.Load(), s.wrong.Load(), median(s.delays), p99), nil
}
