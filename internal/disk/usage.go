package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
)

// usage is what a tenant has in an env, with all that was given a place, durable
// or not. Only the committer changes it.
type usage struct {
	tenant  string // its journal.TenantKey
	streams atomic.Int64
	bytes   atomic.Int64
	touched bool // by the group that is written; the committer's
}

func (u *usage) now() journal.Usage {
	return journal.Usage{Streams: u.streams.Load(), Bytes: u.bytes.Load()}
}

// usages holds the usage of every tenant that has any, at about 150 bytes each.
type usages struct {
	mu       sync.Mutex
	byTenant map[string]*usage
}

// loadUsages reads the rows of all tenants.
func loadUsages(db *pebble.DB) (u *usages, err error) {
	iter, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixUsage}, UpperBound: []byte{prefixUsage + 1}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	u = &usages{byTenant: make(map[string]*usage)}
	for ok := iter.First(); ok; ok = iter.Next() {
		used, err := parseUsage(iter.Value())
		if err != nil {
			return nil, err
		}
		tenant := u.of(string(iter.Key()[1:]))
		tenant.streams.Store(used.Streams)
		tenant.bytes.Store(used.Bytes)
	}
	return u, iter.Error()
}

// of returns the usage of the tenant with that key, at first none.
func (u *usages) of(tenant string) *usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	used := u.byTenant[tenant]
	if used == nil {
		used = &usage{tenant: tenant}
		u.byTenant[tenant] = used
	}
	return used
}

// Usage returns what the tenant has in the env of what a [journal.Quota] bounds:
// the streams, and the bytes that they retain. It may be ahead of what is
// durable.
func (j *Journal) Usage(tenant, env string) (streams, bytes int64) {
	j.used.mu.Lock()
	defer j.used.mu.Unlock()
	if used := j.used.byTenant[journal.TenantKeyOf(tenant, env)]; used != nil {
		now := used.now()
		return now.Streams, now.Bytes
	}
	return 0, 0
}

// usage returns the usage of the stream's tenant.
func (g *group) usage(s *stream) *usage {
	if s.used == nil {
		s.used = g.j.used.of(journal.TenantKey(s.key))
	}
	return s.used
}

// admit takes it that s is to grow by so many bytes, or returns a
// *journal.QuotaError.
func (g *group) admit(s *stream, bytes int64) error {
	u, more := g.usage(s), journal.Usage{Bytes: bytes}
	if s.next.seq == 0 {
		more.Streams = 1
	}
	if err := g.j.options.Quota.Check(u.now(), more); err != nil {
		return err
	}
	g.use(u, more)
	return nil
}

// use adds to u, of which the row is then written with the group.
func (g *group) use(u *usage, more journal.Usage) {
	u.streams.Add(more.Streams)
	u.bytes.Add(more.Bytes)
	if !u.touched {
		u.touched = true
		g.touched = append(g.touched, u)
	}
}

// setUsages puts the rows of all that was touched into the batch.
func (g *group) setUsages() error {
	for _, u := range g.touched {
		u.touched = false
		g.key = usageKey(g.key[:0], u.tenant)
		if err := g.batch.Set(g.key, appendUsage(nil, u.now()), nil); err != nil {
			return err
		}
	}
	return nil
}

// upgrade makes a database of the version before, which knew of no usage, one of
// this version: it counts what is there.
func upgrade(db *pebble.DB, identity []byte) error {
	counted, err := count(db)
	if err != nil {
		return err
	}
	batch := db.NewBatch()
	for tenant, used := range counted {
		if err := batch.Set(usageKey(nil, tenant), appendUsage(nil, used), nil); err != nil {
			return err
		}
	}
	if err := batch.Set(identityKey, identity, nil); err != nil {
		return err
	}
	if err := db.Apply(batch, pebble.Sync); err != nil {
		return err
	}
	return batch.Close()
}

// count looks at every stream, and returns the usage by tenant.
func count(db *pebble.DB) (map[string]journal.Usage, error) {
	counted := make(map[string]journal.Usage)
	add := func(stream string, bytes int64) {
		tenant := journal.TenantKey(stream)
		u := counted[tenant]
		counted[tenant] = journal.Usage{Streams: u.Streams + 1, Bytes: u.Bytes + bytes}
	}
	err := eachStream(db, func(stream string, has extent) bool {
		add(stream, has.bytes)
		return true
	})
	if err == nil {
		err = eachEmptied(db, func(stream string) { add(stream, 0) })
	}
	return counted, err
}

// extent is what a stream retains.
type extent struct {
	oldest       time.Time
	count, bytes int64
}

// eachStream calls fn with each stream that has events, until fn returns false.
// It seeks from stream to stream.
func eachStream(db *pebble.DB, fn func(stream string, has extent) bool) (err error) {
	iter, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixEvent}, UpperBound: []byte{prefixEvent + 1}})
	if err != nil {
		return err
	}
	defer func() {
		if closed := iter.Close(); err == nil {
			err = closed
		}
	}()
	for ok := iter.First(); ok; {
		stream, seq := splitEventKey(iter.Key())
		oldest, first, err := parseEvent(iter.Value(), seq)
		if err != nil {
			return err
		}
		has := extent{oldest: oldest.Time, bytes: int64(oldest.Size())}
		end := eventsEnd(nil, stream)
		if !iter.SeekLT(end) {
			return iter.Error()
		}
		_, seq = splitEventKey(iter.Key())
		_, last, err := parseEvent(iter.Value(), seq)
		if err != nil {
			return err
		}
		has.count = int64(last.seq-first.seq) + 1
		has.bytes += int64(last.bytes - first.bytes)
		if !fn(stream, has) {
			return nil
		}
		ok = iter.SeekGE(end)
	}
	return iter.Error()
}

// eachEmptied calls fn with each stream that has a floor and no events.
func eachEmptied(db *pebble.DB, fn func(stream string)) (err error) {
	floors, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixFloor}, UpperBound: []byte{prefixFloor + 1}})
	if err != nil {
		return err
	}
	defer func() {
		if closed := floors.Close(); err == nil {
			err = closed
		}
	}()
	events, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixEvent}, UpperBound: []byte{prefixEvent + 1}})
	if err != nil {
		return err
	}
	defer func() {
		if closed := events.Close(); err == nil {
			err = closed
		}
	}()
	for ok := floors.First(); ok; ok = floors.Next() {
		stream := string(floors.Key()[1:])
		start := eventKey(nil, stream, 0)
		if !events.SeekGE(start) || !bytes.HasPrefix(events.Key(), start[:len(start)-seqBytes]) {
			fn(stream)
		}
		if err := events.Error(); err != nil {
			return err
		}
	}
	return floors.Error()
}

func usageKey(dst []byte, tenant string) []byte {
	return append(append(dst, prefixUsage), tenant...)
}

func appendUsage(dst []byte, u journal.Usage) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(u.Streams))
	return binary.BigEndian.AppendUint64(dst, uint64(u.Bytes))
}

func parseUsage(b []byte) (journal.Usage, error) {
	if len(b) != 16 {
		return journal.Usage{}, fmt.Errorf("%w: a tenant's usage", ErrDamaged)
	}
	return journal.Usage{Streams: int64(binary.BigEndian.Uint64(b)), Bytes: int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
