package disk_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
	"github.com/twinrail/twinrail/internal/table"
	"github.com/twinrail/twinrail/internal/table/tabletest"
)

func TestTable(t *testing.T) {
	tabletest.Run(t, func(t tabletest.T) tabletest.Store {
		fs := vfs.NewMem()
		var j *disk.Journal
		open := func() table.Table {
			var err error
			if j, err = disk.Open("journal", disk.Options{FS: fs}); err != nil {
				t.Fatalf("open: %v", err)
			}
			return j.Table("rows")
		}
		shut := func() {
			if err := j.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
		t.Cleanup(shut)
		return tabletest.Store{Table: open(), Reopen: func() table.Table { shut(); return open() }}
	})
}

// rowsOf returns the keys of a table, each with its value.
func rowsOf(t tabletest.T, tb table.Table) []string {
	t.Helper()
	var rows []string
	if err := tb.Scan(func(key string, value []byte) error {
		rows = append(rows, key+"="+string(value))
		return nil
	}); err != nil {
		t.Fatalf("scan: %v", err)
	}
	return rows
}

// No table sees a row of another, however their names and keys run together.
func TestTablesApart(t *testing.T) {
	j := mustOpen(t, "journal", disk.Options{FS: vfs.NewMem()})
	defer mustClose(t, j)
	names := rapid.StringMatching(`[abz]{1,3}`)
	keys := rapid.StringMatching(`[\x00-\x03abz]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		one, two, key := names.Draw(t, "one"), names.Draw(t, "two"), keys.Draw(t, "key")
		if one == two {
			t.Skip("one table")
		}
		if err := j.Table(one).Put(key, []byte("v"), table.Lazy); err != nil {
			t.Fatalf("put: %v", err)
		}
		if rows := rowsOf(t, j.Table(two)); len(rows) != 0 {
			t.Errorf("the row %q of %q is in %q: %q", key, one, two, rows)
		}
		if err := j.Table(one).Delete(key, table.Lazy); err != nil {
			t.Fatalf("delete: %v", err)
		}
	})
}

func TestTableName(t *testing.T) {
	j := mustOpen(t, "journal", disk.Options{FS: vfs.NewMem()})
	defer mustClose(t, j)
	for _, name := range []string{"", "A", "a1", "a\x00", "é", strings.Repeat("a", 33)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a table may be called %q", name)
				}
			}()
			j.Table(name)
		}()
	}
	j.Table(strings.Repeat("z", 32))
}

// Streams and tables live beside each other: sweeps and trims of the one find
// nothing of the other.
func TestTableBesideStreams(t *testing.T) {
	fs, s := vfs.NewMem(), journaltest.NewStream(t, "c1")
	j := mustOpen(t, "journal", disk.Options{FS: fs})
	first := mustAppend(t, j, s, "a", "b")
	mustClose(t, j) // as it was before there were tables

	options := disk.Options{FS: fs, Retention: journal.Retention{Count: 1}, SweepInterval: time.Millisecond}
	j = mustOpen(t, "journal", options)
	tb := j.Table("rows")
	if rows := rowsOf(t, tb); len(rows) != 0 {
		t.Errorf("a new table has %q", rows)
	}
	if err := tb.Put(s.Key(), []byte("v"), table.Synced); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, err := j.Bounds(t.Context(), s.Reader); err != nil || time.Now().After(deadline) {
			t.Fatalf("the stream is not trimmed: %+v, %v", b, err)
		} else if b.Oldest == first[0].Cursor {
			break
		}
	}
	mustClose(t, j)
	j = mustOpen(t, "journal", options)
	defer mustClose(t, j)
	if rows := rowsOf(t, j.Table("rows")); !slices.Equal(rows, []string{s.Key() + "=v"}) {
		t.Errorf("the table has %q", rows)
	}
	if b, err := j.Bounds(t.Context(), s.Reader); err != nil || b.Head != first[1].Cursor {
		t.Errorf("the stream ends at %+v, %v", b, err)
	}
}

// A lazy change becomes durable although nothing comes after it.
func TestTableLazy(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := mustOpen(t, "journal", disk.Options{FS: fs})
	defer mustClose(t, j)
	if err := j.Table("rows").Put("k", []byte("v"), table.Lazy); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		after := mustOpen(t, "journal", disk.Options{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
		rows := rowsOf(t, after.Table("rows"))
		mustClose(t, after)
		if slices.Equal(rows, []string{"k=v"}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s a power cut leaves %q", rows)
		}
	}
}

// What was answered before Close is written, however long the disk takes.
func TestTableClose(t *testing.T) {
	var hold atomic.Bool
	hangs, release := make(chan struct{}), make(chan struct{})
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		if sync && strings.HasSuffix(op.Path, ".log") && hold.CompareAndSwap(true, false) {
			close(hangs)
			<-release
		}
		return nil
	})
	fs := vfs.NewMem()
	j := mustOpen(t, "journal", disk.Options{FS: errorfs.Wrap(fs, inject)})
	tb, want := j.Table("rows"), []string{"a=v"}
	hold.Store(true)
	first := tb.Put("a", []byte("v"), table.Lazy)
	<-hangs
	for i := range 100 { // behind the one that hangs
		first = errors.Join(first, tb.Put(fmt.Sprintf("b%02d", i), []byte("v"), table.Lazy))
		want = append(want, fmt.Sprintf("b%02d=v", i))
	}
	if first != nil {
		t.Fatal(first)
	}
	closed, s := make(chan error, 1), journaltest.NewStream(t, "c1")
	go func() { closed <- j.Close() }()
	for {
		if _, err := j.Bounds(t.Context(), s.Reader); errors.Is(err, journal.ErrClosed) {
			break
		}
	}
	close(release)
	if err := <-closed; err != nil {
		t.Fatalf("close: %v", err)
	}
	j = mustOpen(t, "journal", disk.Options{FS: fs})
	defer mustClose(t, j)
	if rows := rowsOf(t, j.Table("rows")); !slices.Equal(rows, want) {
		t.Errorf("%d rows are left of %d", len(rows), len(want))
	}
}

// After a failed write, by whomever it was made, tables and streams are answered
// with the failure, nobody waits for ever, and the database can be closed.
func TestTableFailure(t *testing.T) {
	kinds := map[string]func(errorfs.Op) bool{
		"sync": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		},
		"write": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite },
	}
	for name, fails := range kinds {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && strings.HasSuffix(op.Path, ".log") && fails(op) {
					return errorfs.ErrInjected
				}
				return nil
			})
			j := mustOpen(t, "journal", disk.Options{FS: errorfs.Wrap(vfs.NewMem(), inject)})
			tb := j.Table("rows")
			if err := tb.Put("k", []byte("v"), table.Synced); err != nil {
				t.Fatal(err)
			}
			broken.Store(true)
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					if err := tb.Put(fmt.Sprint(i), []byte("v"), table.Synced); !errors.Is(err, journal.ErrUnavailable) {
						t.Errorf("a put that fails: %v", err)
					}
				})
			}
			wg.Wait()
			for name, err := range map[string]error{
				"lazy put":        tb.Put("k", nil, table.Lazy),
				"synced deletion": tb.Delete("k", table.Synced),
				"scan":            tb.Scan(func(string, []byte) error { return nil }),
			} {
				if !errors.Is(err, journal.ErrUnavailable) {
					t.Errorf("%s after a failed write: %v", name, err)
				}
			}
			wantUnavailable(t, j, journaltest.NewStream(t, "c1"))
		})
	}
}

// A journal whose table has failed is closed although its committer hangs, as it
// may do in Pebble then.
func TestTableFailureHangs(t *testing.T) {
	var broken atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileWrite {
			return errorfs.ErrInjected
		}
		return nil
	})
	j := mustOpen(t, "journal", disk.Options{FS: errorfs.Wrap(vfs.NewMem(), inject)})
	s := journaltest.NewStream(t, "c1")
	hangs, release := make(chan struct{}), make(chan struct{})
	j.Notify(func(string, uint64) { close(hangs); <-release })
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = j.Append(t.Context(), []journal.Record{s.Record("a", "d")}, journal.Expect{}) })
	<-hangs
	broken.Store(true)
	if err := j.Table("rows").Put("k", nil, table.Synced); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if err := j.Close(); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("close: %v", err)
	}
	close(release)
	wg.Wait()
}

// The environment by which TestTableCrash makes this binary its victim.
const tableCrashDir = "TWINRAIL_TABLE_CRASH_DIR"

// TestTableCrash kills a process with SIGKILL that changes a table. The changes
// that are left are a beginning of all, with each that was acknowledged.
func TestTableCrash(t *testing.T) {
	if dir := os.Getenv(tableCrashDir); dir != "" {
		tableVictim(t, dir)
		return
	}
	for range 5 {
		dir := t.TempDir()
		acked := killTable(t, dir)
		j := mustOpen(t, dir, disk.Options{})
		rows := rowsOf(t, j.Table("rows"))
		mustClose(t, j)
		if len(rows) < acked {
			t.Errorf("%d rows are left of %d that were acknowledged", len(rows), acked)
		}
		for i, row := range rows {
			if row != tableCrashKey(i)+"=v" {
				t.Fatalf("row %d is %q: one before it is missing", i, row)
			}
		}
	}
}

func tableCrashKey(i int) string { return fmt.Sprintf("%08d", i) }

// tableVictim puts row after row until it is killed, every tenth of them synced,
// and tells how many are safe after each of these.
func tableVictim(t *testing.T, dir string) {
	tb := mustOpen(t, dir, disk.Options{}).Table("rows")
	for i, end := 0, time.Now().Add(3*time.Minute); time.Now().Before(end); i++ { // should its parent be gone
		d := table.Durability(i%10 == 9)
		if err := tb.Put(tableCrashKey(i), []byte("v"), d); err != nil {
			t.Fatal(err)
		}
		if d == table.Synced {
			fmt.Fprintf(os.Stdout, "safe %d\n", i+1) // one write
		}
	}
}

// killTable runs a victim, kills it after a random number of acknowledgements,
// and returns how many rows it said are safe.
func killTable(t *testing.T, dir string) (safe int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestTableCrash$")
	cmd.Env = append(os.Environ(), tableCrashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told, limit := 0, 1+rand.IntN(200)
	for lines := bufio.NewScanner(out); lines.Scan(); told++ {
		n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "safe "))
		if err != nil {
			t.Fatalf("the victim says %q", lines.Text())
		}
		safe = n
		if told == limit {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil || told < limit {
		t.Fatalf("the victim told %d times and ended by itself: %v", told, err)
	}
	return safe
}
