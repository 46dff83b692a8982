package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

// What is stored where. A stream's part of a key is its home key, of which none
// is a prefix of another, so that streams cannot meet. Integers are big-endian.
//
//	l                    version (1 byte), the log's identity (16)
//	e stream seq(8)      bytes appended to the stream so far (8), the record
//	i stream hash(16)    the seq (8) of the latest record with the ID of that hash
//	m stream             the floor: seq, check, bytes appended so far (8 each)
//	u tenant             streams, retained bytes (8 each); the tenant's part is its journal.TenantKey
//	x table key          a row of a table; the table's name comes after its length (1 byte)
//
// A batch that adds or trims events has the new rows of the tenants concerned.
//
// The index has all events but the last unindexed of each stream: theirs are in
// memory where they are needed, and most streams are no longer than that.
//
// Seqs are dense. The floor is the place of the last record that was trimmed; a
// stream of which nothing was trimmed has none.
const (
	layoutVersion = 2
	withoutUsage  = 1 // the version before, which had no u

	prefixEvent = 'e'
	prefixIndex = 'i'
	prefixFloor = 'm'
	prefixUsage = 'u'
	prefixTable = 'x'
)

var identityKey = []byte{'l'}

const seqBytes = 8

// unindexed is how many events it takes after an event until that is in the
// index. It is part of the layout.
const unindexed = 256

// indexed returns up to which seq the index has the events of a stream that ends
// at last.
func indexed(last uint64) uint64 { return last - min(last, unindexed) }

func eventKey(dst []byte, stream string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append(dst, prefixEvent), stream...), seq)
}

// eventsEnd is behind every event of the stream.
func eventsEnd(dst []byte, stream string) []byte { return eventKey(dst, stream, math.MaxUint64) }

// splitEventKey is the inverse of eventKey.
func splitEventKey(key []byte) (stream string, seq uint64) {
	at := len(key) - seqBytes
	return string(key[1:at]), binary.BigEndian.Uint64(key[at:])
}

func indexKey(dst []byte, stream string, id idHash) []byte {
	return append(append(append(dst, prefixIndex), stream...), id[:]...)
}

func floorKey(dst []byte, stream string) []byte {
	return append(append(dst, prefixFloor), stream...)
}

// idHash stands for an event's ID, in a length that does not depend on it.
type idHash [16]byte

func hashID(id string) idHash {
	sum := sha256.Sum256([]byte(id))
	return idHash(sum[:])
}

// place is where a record stands in its stream. The zero place is before the
// first record.
type place struct {
	seq   uint64
	check uint64
	bytes uint64 // appended to the stream up to and with the record, in Record.Size
}

func (p place) after(rec *journal.Record) place {
	seq := p.seq + 1
	return place{seq, rec.Check(seq), p.bytes + uint64(rec.Size())}
}

func (p place) appendBinary(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.seq)
	dst = binary.BigEndian.AppendUint64(dst, p.check)
	return binary.BigEndian.AppendUint64(dst, p.bytes)
}

func parsePlace(b []byte) (place, error) {
	if len(b) != 24 {
		return place{}, fmt.Errorf("%w: a floor", ErrDamaged)
	}
	return place{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, nil
}

const eventHeader = 8

// appendEvent appends an event's value, with room for the bytes that [setBytes]
// fills in once the event's place is known.
func appendEvent(dst []byte, rec *journal.Record) []byte {
	return rec.AppendBinary(append(dst, make([]byte, eventHeader)...))
}

func setBytes(event []byte, bytes uint64) { binary.BigEndian.PutUint64(event, bytes) }

// parseEvent returns the record in an event's value, of which it keeps parts,
// and its place.
func parseEvent(value []byte, seq uint64) (journal.Stored, place, error) {
	if len(value) < eventHeader {
		return journal.Stored{}, place{}, fmt.Errorf("%w: an event", ErrDamaged)
	}
	rec, err := journal.ParseStored(value[eventHeader:])
	if err != nil {
		return journal.Stored{}, place{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return rec, place{seq, rec.Check(seq), binary.BigEndian.Uint64(value)}, nil
}

func parseSeq(b []byte) (uint64, error) {
	if len(b) != seqBytes {
		return 0, fmt.Errorf("%w: an index entry", ErrDamaged)
	}
	return binary.BigEndian.Uint64(b), nil
}

// get returns a copy of the value at key, nil where there is none.
func get(db *pebble.DB, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(value)), value...), closer.Close()
}
