package disk_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

func mustClose(t *testing.T, j journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func mustAppend(t *testing.T, j journal.Journal, s journaltest.Stream, ids ...string) []journal.Result {
	t.Helper()
	var results []journal.Result
	for _, id := range ids {
		r, err := j.Append(t.Context(), []journal.Record{s.Record(id, "d")}, journal.Expect{})
		if err != nil {
			t.Fatalf("append: %v", err)
		}
		results = append(results, r...)
	}
	return results
}

func wantSeek(t *testing.T, j journal.Journal, s journaltest.Stream, c twinrail.Cursor, want error) {
	t.Helper()
	if _, err := j.Seek(t.Context(), s.Reader, c); !errors.Is(err, want) {
		t.Errorf("seek of %+v: %v, want %v", c, err, want)
	}
}

// All that is said of a stream holds after the journal is opened again.
func TestReopen(t *testing.T) {
	dir, s, emptied := t.TempDir(), journaltest.NewStream(t, "c1"), journaltest.NewStream(t, "c2")
	options := disk.Options{Retention: journal.Retention{Age: time.Hour}, SweepInterval: time.Millisecond}
	j := mustOpen(t, dir, options)
	results := mustAppend(t, j, s, "a", "b", "c")
	old, err := j.Append(t.Context(), []journal.Record{
		emptied.RecordAt(time.Now().Add(-2*time.Hour), "a", "d"), emptied.RecordAt(time.Now().Add(-2*time.Hour), "b", "d"),
	}, journal.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, err := j.Bounds(t.Context(), emptied.Reader); err != nil || time.Now().After(deadline) {
			t.Fatalf("the stream is not emptied: %+v, %v", b, err)
		} else if b.Oldest == old[1].Cursor {
			break
		}
	}
	mustClose(t, j)

	j = mustOpen(t, dir, options)
	defer mustClose(t, j)
	for _, r := range results {
		wantSeek(t, j, s, r.Cursor, nil)
	}
	if again := mustAppend(t, j, s, "b", "d"); !again[0].Duplicate || again[0].Cursor != results[1].Cursor || again[1].Prev != results[2].Seq {
		t.Errorf("after b again and d: %+v", again)
	}
	wantSeek(t, j, emptied, old[0].Cursor, journal.ErrExpired)
	wantSeek(t, j, emptied, old[1].Cursor, nil)
	if next := mustAppend(t, j, emptied, "a"); next[0].Duplicate || next[0].Prev != old[1].Seq {
		t.Errorf("the first event after the stream was emptied: %+v", next)
	}
}

// A log that is put back to what it was, or made anew, does not take the cursors
// of what came after for its own.
func TestRolledBack(t *testing.T) {
	home, s, other := t.TempDir(), journaltest.NewStream(t, "c1"), journaltest.NewStream(t, "c2")
	dir, backup := filepath.Join(home, "journal"), filepath.Join(home, "backup")
	j := mustOpen(t, dir, disk.Options{})
	kept := mustAppend(t, j, s, "a", "b")
	mustClose(t, j)
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	j = mustOpen(t, dir, disk.Options{})
	lost := mustAppend(t, j, s, "c", "d", "e", "f")
	lostStream := mustAppend(t, j, other, "a")
	mustClose(t, j)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(backup, dir)); err != nil {
		t.Fatal(err)
	}

	j = mustOpen(t, dir, disk.Options{})
	mustAppend(t, j, s, "c2", "d")
	for _, r := range kept {
		wantSeek(t, j, s, r.Cursor, nil)
	}
	for _, r := range lost {
		wantSeek(t, j, s, r.Cursor, journal.ErrUnknown)
	}
	wantSeek(t, j, other, lostStream[0].Cursor, journal.ErrUnknown)
	mustClose(t, j)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	j = mustOpen(t, dir, disk.Options{})
	defer mustClose(t, j)
	again := mustAppend(t, j, s, "a", "b")
	for i, r := range kept {
		wantSeek(t, j, s, r.Cursor, journal.ErrUnknown)
		if again[i].Cursor.Epoch == r.Cursor.Epoch {
			t.Error("a new log has the epoch of the old one")
		}
	}
}

// TestLocked has two processes at one directory, and one process twice.
func TestLocked(t *testing.T) {
	const held = "TWINRAIL_LOCKED_DIR"
	if dir := os.Getenv(held); dir != "" {
		if _, err := disk.Open(dir, disk.Options{}); !errors.Is(err, disk.ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("open in another process: %v", err)
		}
		return
	}
	dir := t.TempDir()
	j := mustOpen(t, dir, disk.Options{})
	defer mustClose(t, j)
	if _, err := disk.Open(dir, disk.Options{}); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("open in the same process: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLocked$")
	cmd.Env = append(os.Environ(), held+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestForeign(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letters.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, dir, disk.ErrForeign)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("something was written into a foreign directory: %v, %v", names, err)
	}

	dir = t.TempDir()
	setIn(t, dir, "somebody's", "data")
	wantOpenError(t, dir, disk.ErrForeign)

	dir = t.TempDir()
	setIn(t, dir, "l", "\x03sixteen bytes...")
	wantOpenError(t, dir, disk.ErrForeign)

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, file, nil)
}

// wantOpenError checks that the journal does not open, because of want if that
// is one.
func wantOpenError(t *testing.T, dir string, want error) {
	t.Helper()
	j, err := disk.Open(dir, disk.Options{})
	if err == nil {
		mustClose(t, j)
		t.Fatalf("%s was opened", dir)
	}
	if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), dir) {
		t.Errorf("open: %v, want %v", err, want)
	}
}

// setIn sets a key of a database that nothing knows to be a journal.
func setIn(t *testing.T, dir, key, value string) {
	t.Helper()
	db, err := pebble.Open(dir, disk.PebbleOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte(key), []byte(value), pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDamaged(t *testing.T) {
	for _, pattern := range []string{"MANIFEST-*", "*.sst"} {
		t.Run(pattern, func(t *testing.T) {
			dir, s := t.TempDir(), journaltest.NewStream(t, "c1")
			j := mustOpen(t, dir, disk.Options{})
			mustAppend(t, j, s, "a")
			mustClose(t, j)
			mustClose(t, mustOpen(t, dir, disk.Options{})) // flushes the log
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) == 0 {
				t.Fatalf("%v, %v", names, err)
			}
			for _, name := range names {
				content, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for i := range content {
					content[i] ^= 0x55
				}
				if err := os.WriteFile(name, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wantOpenError(t, dir, disk.ErrDamaged)
		})
	}
}
