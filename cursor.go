package twinrail

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Cursor is a position in one stream: after the event Seq, or before the first
// one where Seq is 0. To clients it is opaque; its text form is fixed in length.
//
// Epoch names the log of the stream: a log that was lost and made again has
// another one, and so has every other stream. Check is derived from the event at
// Seq, so that a cursor into a part of the log that was rolled back (a restored
// backup) and written anew is known to be void. Check is 0 where Seq is 0.
type Cursor struct {
	Epoch uint64
	Seq   uint64
	Check uint64 // CheckBits wide
}

// CheckBits is the width of [Cursor.Check].
const CheckBits = 56

// CursorEarliest is what a client sends in place of a cursor to start at the
// oldest event that is retained. It is not the text of any cursor.
const CursorEarliest = "earliest"

const (
	cursorVersion = 1
	cursorBytes   = 1 + 8 + 8 + CheckBits/8
)

// CursorLen is the length of a cursor's text.
const CursorLen = cursorBytes * 4 / 3

var errCursor = errors.New("twinrail: not a cursor")

// AppendText appends the text of c: CursorLen of A-Z a-z 0-9 _ -.
func (c Cursor) AppendText(dst []byte) ([]byte, error) { return c.append(dst), nil }

func (c Cursor) append(dst []byte) []byte {
	var b [cursorBytes + 1]byte
	b[0] = cursorVersion
	binary.BigEndian.PutUint64(b[1:], c.Epoch)
	binary.BigEndian.PutUint64(b[9:], c.Seq)
	binary.BigEndian.PutUint64(b[17:], c.Check<<(64-CheckBits))
	return base64.RawURLEncoding.AppendEncode(dst, b[:cursorBytes])
}

// String returns the text of c.
func (c Cursor) String() string { return string(c.append(make([]byte, 0, CursorLen))) }

// MarshalText returns the text of c.
func (c Cursor) MarshalText() ([]byte, error) { return c.append(nil), nil }

// UnmarshalText sets c from its text; its errors are those of [ParseCursor].
func (c *Cursor) UnmarshalText(text []byte) error {
	parsed, err := ParseCursor(string(text))
	if err == nil {
		*c = parsed
	}
	return err
}

// ParseCursor reads the text of a cursor. Each cursor has exactly one text. An
// error means that s is no cursor of any stream, which a server treats like a
// cursor that it does not know.
func ParseCursor(s string) (Cursor, error) {
	if len(s) != CursorLen {
		return Cursor{}, errCursor
	}
	var b [cursorBytes + 1]byte
	// The decoder skips line breaks, so a short result is no cursor either.
	n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(s))
	if err != nil || n != cursorBytes || b[0] != cursorVersion {
		return Cursor{}, errCursor
	}
	return Cursor{
		Epoch: binary.BigEndian.Uint64(b[1:]),
		Seq:   binary.BigEndian.Uint64(b[9:]),
		Check: binary.BigEndian.Uint64(b[17:]) >> (64 - CheckBits),
	}, nil
}
