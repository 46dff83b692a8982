package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// Stored is what a log keeps of an event: who owns it, whom it is for, and its
// JSON in two parts, around where its position goes. It says what is there, and
// is no right to anything: what is appended is a [Record]. It is not changed once
// made; its slices may be shared.
type Stored struct {
	// Owner is the home key of the stream that the event was stored in. It is
	// checked again where the event goes out.
	Owner    string
	ID       string
	Time     time.Time // UTC, whole microseconds
	Channel  twinrail.Channel
	Audience twinrail.Audience
	To       []string
	// Digest is of what the publisher said: all but the time and the ids of the
	// request. Two records of one stream with the same ID and Digest are the
	// same event.
	Digest [16]byte
	// Head and Tail are as in [twinrail.Event.AppendHead].
	Head []byte
	Tail []byte
}

// Record is an event that may be appended, before it has a place in a log: the
// right to store it, with what is to be stored. Only [NewRecord] makes one, of a
// Writer, and nobody can change for whom it is after that. The zero Record is not
// taken by any journal.
type Record struct {
	stored Stored
}

// NewRecord makes the record of the event that w was authorized for. Of e it
// takes ID, Type, To, Time and Data; the rest is stamped.
func NewRecord(w auth.Writer, e twinrail.Event) Record {
	w.Stamp(&e)
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	return Record{Stored{
		Owner:    w.Key(),
		ID:       e.ID,
		Time:     e.Time,
		Channel:  e.Channel,
		Audience: w.Address().Audience,
		To:       slices.Clone(e.To), // it is the caller's
		Digest:   digest(w, &e),
		Head:     e.AppendHead(nil),
		Tail:     e.AppendTail(make([]byte, 0, len(e.Data)+512)),
	}}
}

// Stored returns what of r is stored.
func (r *Record) Stored() Stored { return r.stored }

// Owner returns the home key of the stream that r was made for, "" of the zero
// Record.
func (r *Record) Owner() string { return r.stored.Owner }

// ID returns the event's ID.
func (r *Record) ID() string { return r.stored.ID }

// Time returns the event's time, in UTC and whole microseconds.
func (r *Record) Time() time.Time { return r.stored.Time }

// Channel returns the channel that the event is on.
func (r *Record) Channel() twinrail.Channel { return r.stored.Channel }

// Digest is [Stored.Digest].
func (r *Record) Digest() [16]byte { return r.stored.Digest }

// Check is [Stored.Check].
func (r *Record) Check(seq uint64) uint64 { return r.stored.Check(seq) }

// Size is [Stored.Size].
func (r *Record) Size() int { return r.stored.Size() }

// AppendBinary is [Stored.AppendBinary].
func (r *Record) AppendBinary(dst []byte) []byte { return r.stored.AppendBinary(dst) }

func digest(w auth.Writer, e *twinrail.Event) [16]byte {
	h := sha256.New()
	hashString(h, w.Address().Key())
	hashString(h, string(e.Channel))
	hashString(h, e.Type)
	hashString(h, e.Routing.ActorID)
	hashString(h, string(e.ActorType))
	hashString(h, string(e.Data))
	for _, actor := range e.To {
		hashString(h, actor)
	}
	return [16]byte(h.Sum(nil))
}

// hashString writes s behind its length, so that no two sequences of strings
// hash alike.
func hashString(h hash.Hash, s string) {
	var n [binary.MaxVarintLen64]byte
	h.Write(n[:binary.PutUvarint(n[:], uint64(len(s)))])
	h.Write([]byte(s))
}

// Check returns the check of a cursor to the record at seq: it ties the cursor
// to this very record at this very place.
func (r *Stored) Check(seq uint64) uint64 {
	b := appendBytes(make([]byte, 0, 512), r.Owner) // on the stack, as it usually fits
	b = appendBytes(b, r.ID)
	b = append(b, r.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMicro()))
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) >> (64 - twinrail.CheckBits)
}

// StreamEpoch returns the epoch of a stream's cursors in the log that has the
// given identity, which must be random and new for each log that is made.
func StreamEpoch(log [16]byte, key string) uint64 {
	h := sha256.New()
	h.Write(log[:])
	hashString(h, key)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// Size returns roughly what the record takes in memory, in bytes.
func (r *Stored) Size() int {
	return len(r.Owner) + len(r.ID) + len(r.Head) + len(r.Tail) + 16
}

const recordVersion = 1

// AppendBinary appends the stored form of r.
func (r *Stored) AppendBinary(dst []byte) []byte {
	dst = append(dst, recordVersion)
	dst = appendBytes(dst, r.Owner)
	dst = appendBytes(dst, r.ID)
	dst = binary.AppendVarint(dst, r.Time.UnixMicro())
	dst = appendBytes(dst, string(r.Channel))
	for _, v := range r.Audience.Values() {
		dst = appendBytes(dst, v)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.To)))
	for _, actor := range r.To {
		dst = appendBytes(dst, actor)
	}
	dst = append(dst, r.Digest[:]...)
	dst = appendBytes(dst, r.Head)
	return appendBytes(dst, r.Tail)
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

var errRecord = errors.New("journal: a stored record is damaged")

// ParseStored reads the stored form of a record. Head and Tail of the result
// are parts of b.
func ParseStored(b []byte) (Stored, error) {
	if len(b) == 0 || b[0] != recordVersion {
		return Stored{}, fmt.Errorf("%w: unknown version", errRecord)
	}
	p := parser{b: b[1:]}
	r := Stored{Owner: string(p.bytes()), ID: string(p.bytes())}
	r.Time = time.UnixMicro(p.varint()).UTC()
	r.Channel = twinrail.Channel(p.bytes())
	a := &r.Audience
	for _, v := range []*string{&a.SurfaceID, &a.CanvasID, &a.ProjectionID, &a.PanelID, &a.ThreadID} {
		*v = string(p.bytes())
	}
	if n := p.uvarint(); n > uint64(len(p.b)) {
		p.bad = true
	} else if n > 0 {
		r.To = make([]string, n)
		for i := range r.To {
			r.To[i] = string(p.bytes())
		}
	}
	copy(r.Digest[:], p.take(uint64(len(r.Digest))))
	r.Head, r.Tail = p.bytes(), p.bytes()
	if p.bad || len(p.b) != 0 {
		return Stored{}, errRecord
	}
	return r, nil
}

// parser reads from the front of b; after the first failure bad is set and all
// it returns is empty.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n uint64) []byte {
	if p.bad || n > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	taken := p.b[:n:n]
	p.b = p.b[n:]
	return taken
}

func (p *parser) bytes() []byte { return p.take(p.uvarint()) }

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}
