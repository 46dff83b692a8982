package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

// sseBlock is what a text/event-stream says between two blank lines. A block of
// comments alone is not one.
type sseBlock struct {
	id      string // "" where there is none
	event   string
	data    []byte // nil where there is none; valid until the next block is read
	retry   time.Duration
	hasData bool
}

var errTooLong = errors.New("client: an event is longer than Options.MaxMessage")

// sseReader splits a text/event-stream into blocks, as the HTML standard says.
// It differs from a browser's in what it hands on: also blocks without data, for
// their id, and the reconnection time, neither of which the libraries give.
type sseReader struct {
	br     *bufio.Reader
	max    int // bytes of a block
	line   []byte
	data   []byte
	skipLF bool // the last line ended with CR, of which an LF may be part
	begun  bool // the first line has been read, and with it a byte order mark
}

func newSSEReader(r io.Reader, max int) *sseReader {
	return &sseReader{br: bufio.NewReader(r), max: max}
}

// next returns the next block that says anything. At the end of the input, and
// what precedes it is not a block without its blank line, it returns io.EOF.
func (r *sseReader) next() (sseBlock, error) {
	var b sseBlock
	said, size := false, 0
	r.data = r.data[:0]
	for {
		line, err := r.readLine(r.max - size)
		if err != nil {
			return sseBlock{}, err
		}
		if len(line) > 0 {
			if said = r.field(&b, line) || said; said {
				size += len(line)
			}
			continue
		}
		if said {
			if b.hasData {
				b.data = r.data[:len(r.data)-1] // without the last line's end
			}
			return b, nil
		}
	}
}

// field takes one line into b and reports whether it says anything.
func (r *sseReader) field(b *sseBlock, line []byte) bool {
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "data":
		r.data = append(append(r.data, value...), '\n')
		b.hasData = true
	case "event":
		b.event = string(value)
	case "id":
		if len(value) == 0 || bytes.IndexByte(value, 0) >= 0 {
			return false
		}
		b.id = string(value)
	case "retry":
		ms, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil {
			return false
		}
		b.retry = time.Duration(ms) * time.Millisecond
	default:
		return false
	}
	return true
}

// readLine returns the next line of at most max bytes without its end, which is
// LF, CR or CRLF. It does not wait for the LF of a CRLF.
func (r *sseReader) readLine(max int) ([]byte, error) {
	r.line = r.line[:0]
	for {
		if _, err := r.br.Peek(1); err != nil {
			return nil, err
		}
		chunk, _ := r.br.Peek(r.br.Buffered())
		if r.skipLF {
			r.skipLF = false
			if chunk[0] == '\n' {
				_, _ = r.br.Discard(1)
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		n := end
		if end < 0 {
			n = len(chunk)
		}
		if len(r.line)+n > max {
			return nil, errTooLong
		}
		r.line = append(r.line, chunk[:n]...)
		if end >= 0 {
			r.skipLF = chunk[end] == '\r'
			_, _ = r.br.Discard(n + 1)
			return r.withoutBOM(), nil
		}
		_, _ = r.br.Discard(n)
	}
}

func (r *sseReader) withoutBOM() []byte {
	if r.begun {
		return r.line
	}
	r.begun = true
	return bytes.TrimPrefix(r.line, []byte("\xEF\xBB\xBF"))
}
