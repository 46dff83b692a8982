package disk_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// wantUsage checks what t_acme has in dev.
func wantUsage(t *testing.T, j *disk.Journal, want journal.Usage) {
	t.Helper()
	wantUsageOf(t, j, "t_acme", "dev", want)
}

func wantUsageOf(t *testing.T, j *disk.Journal, tenant, env string, want journal.Usage) {
	t.Helper()
	if streams, bytes := j.Usage(tenant, env); streams != want.Streams || bytes != want.Bytes {
		t.Errorf("%s in %s has %d streams of %d bytes, want %+v", tenant, env, streams, bytes, want)
	}
}

// A journal that was written before tenants had a quota is counted when it is
// opened, with the streams that trimming has emptied, and only then.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	options := disk.Options{Retention: journal.Retention{Count: 3, Age: time.Hour}, SweepInterval: time.Millisecond}
	j := mustOpen(t, dir, options)
	full, emptied := journaltest.NewStream(t, "c1"), journaltest.NewStream(t, "c11")
	prod, other := journaltest.NewStreamIn(t, "t_acme", "prod", "c1"), journaltest.NewStreamIn(t, "t_acmes", "dev", "c1")
	mustAppend(t, j, full, "a", "b", "c", "d", "e")
	mustAppend(t, j, journaltest.NewStream(t, "c0"), "a")
	mustAppend(t, j, journaltest.NewStream(t, "c2"), "a", "b")
	mustAppend(t, j, prod, "a", "b")
	for _, s := range []journaltest.Stream{emptied, other} {
		old := s.RecordAt(time.Now().Add(-2*time.Hour), "old", "d")
		if _, err := j.Append(t.Context(), []journal.Record{old}, journal.Expect{}); err != nil {
			t.Fatal(err)
		}
	}
	size := func(s journaltest.Stream) int64 {
		rec := s.Record("a", "d")
		return int64(rec.Size())
	}
	acme := journal.Usage{Streams: 4, Bytes: 6 * size(full)}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_, bytes := j.Usage("t_acme", "dev")
		_, others := j.Usage("t_acmes", "dev")
		if bytes == acme.Bytes && others == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("t_acme has %d bytes, t_acmes %d", bytes, others)
		}
	}
	check := func(j *disk.Journal) {
		t.Helper()
		wantUsage(t, j, acme)
		wantUsageOf(t, j, "t_acme", "prod", journal.Usage{Streams: 1, Bytes: 2 * size(prod)})
		wantUsageOf(t, j, "t_acmes", "dev", journal.Usage{Streams: 1})
		wantUsageOf(t, j, "t_acme", "dev/", journal.Usage{})
	}
	check(j)
	mustClose(t, j)

	options.SweepInterval = -1
	before := identityOf(t, dir)
	downgrade(t, dir)
	for range 2 {
		j = mustOpen(t, dir, options)
		check(j)
		mustClose(t, j)
	}
	if after := identityOf(t, dir); !bytes.Equal(before, after) {
		t.Errorf("the log's identity was %x and is %x", before, after)
	}
	setIn(t, dir, "ut_acme/dev/", string(make([]byte, 16)))
	j = mustOpen(t, dir, options)
	wantUsage(t, j, journal.Usage{}) // as the row says
	mustClose(t, j)
	setIn(t, dir, "ut_acme/dev/", "short")
	wantOpenError(t, dir, disk.ErrDamaged)
}

func openIn(t *testing.T, dir string) *pebble.DB {
	t.Helper()
	db, err := pebble.Open(dir, disk.PebbleOptions())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func identityOf(t *testing.T, dir string) []byte {
	t.Helper()
	db := openIn(t, dir)
	value, closer, err := db.Get([]byte("l"))
	if err != nil {
		t.Fatal(err)
	}
	value = bytes.Clone(value)
	if err := errors.Join(closer.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return value
}

// downgrade makes the journal one of the version before.
func downgrade(t *testing.T, dir string) {
	t.Helper()
	identity := identityOf(t, dir)
	identity[0] = 1
	db := openIn(t, dir)
	err := db.DeleteRange([]byte("u"), []byte("v"), pebble.Sync)
	if err := errors.Join(err, db.Set([]byte("l"), identity, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
}
