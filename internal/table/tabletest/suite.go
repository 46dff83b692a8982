// Package tabletest is the suite that every [table.Table] passes.
package tabletest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail/internal/table"
)

// T is what both a test and a run of a property are.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Store is what a table under test is in.
type Store struct {
	Table table.Table
	// Reopen closes what the table is in, opens it again, and returns the table.
	// It is nil where the table cannot be closed.
	Reopen func() table.Table
}

// Run runs the suite. Open returns an empty table, and has it closed by Cleanup.
func Run(t *testing.T, open func(T) Store) {
	tests := []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"Changes", testChanges},
		{"Bounds", testBounds},
		{"Copies", testCopies},
		{"Scan", testScan},
		{"Concurrent", testConcurrent},
		{"Reopen", testReopen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
	t.Run("Model", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { testModel(t, open(t)) })
	})
}

// pair is a row.
type pair struct{ Key, Value string }

// contents returns the rows in the order of the scan.
func contents(t T, tb table.Table) []pair {
	t.Helper()
	var rows []pair
	err := tb.Scan(func(key string, value []byte) error {
		rows = append(rows, pair{key, string(value)})
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return rows
}

func want(t T, tb table.Table, rows ...pair) {
	t.Helper()
	if got := contents(t, tb); !reflect.DeepEqual(got, rows) {
		t.Fatalf("the table has %q, want %q", got, rows)
	}
}

func put(t T, tb table.Table, key, value string, d table.Durability) {
	t.Helper()
	if err := tb.Put(key, []byte(value), d); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

func remove(t T, tb table.Table, key string, d table.Durability) {
	t.Helper()
	if err := tb.Delete(key, d); err != nil {
		t.Fatalf("delete %q: %v", key, err)
	}
}

// What is put is there, under its key alone, until it is overwritten or deleted,
// in the order of the keys' bytes.
func testChanges(t *testing.T, s Store) {
	tb := s.Table
	want(t, tb)
	remove(t, tb, "none", table.Synced)
	put(t, tb, "b", "1", table.Synced)
	put(t, tb, "\xff\xff", "2", table.Lazy)
	put(t, tb, "\x00", "", table.Lazy)
	put(t, tb, "ba", "3", table.Synced)
	put(t, tb, "a/b", "4", table.Lazy)
	want(t, tb, pair{"\x00", ""}, pair{"a/b", "4"}, pair{"b", "1"}, pair{"ba", "3"}, pair{"\xff\xff", "2"})
	put(t, tb, "b", "longer than before", table.Lazy)
	remove(t, tb, "a/b", table.Lazy)
	remove(t, tb, "\x00", table.Synced)
	want(t, tb, pair{"b", "longer than before"}, pair{"ba", "3"}, pair{"\xff\xff", "2"})
	remove(t, tb, "b", table.Lazy)
	put(t, tb, "b", "again", table.Lazy)
	want(t, tb, pair{"b", "again"}, pair{"ba", "3"}, pair{"\xff\xff", "2"})
}

func testBounds(t *testing.T, s Store) {
	tb := s.Table
	key, value := strings.Repeat("k", table.MaxKey), strings.Repeat("v", table.MaxValue)
	put(t, tb, key, value, table.Lazy)
	for _, d := range []table.Durability{table.Lazy, table.Synced} {
		for name, err := range map[string]error{
			"put of no key":          tb.Put("", []byte("v"), d),
			"put of a key over":      tb.Put(key+"k", []byte("v"), d),
			"put of a value over":    tb.Put("k", []byte(value+"v"), d),
			"deletion of no key":     tb.Delete("", d),
			"deletion of a key over": tb.Delete(key+"k", d),
		} {
			if err == nil || errors.Is(err, table.ErrClosed) {
				t.Errorf("%s the bounds: %v", name, err)
			}
		}
	}
	want(t, tb, pair{key, value})
}

// Neither side sees what the other does later to a value.
func testCopies(t *testing.T, s Store) {
	tb := s.Table
	mine := []byte("mine")
	if err := tb.Put("k", mine, table.Lazy); err != nil {
		t.Fatal(err)
	}
	copy(mine, "XXXX")
	want(t, tb, pair{"k", "mine"})
	if err := tb.Scan(func(_ string, value []byte) error { copy(value, "XXXX"); return nil }); err != nil {
		t.Fatal(err)
	}
	want(t, tb, pair{"k", "mine"})
}

// A scan ends with its function's error, and shows one moment although that
// changes the table.
func testScan(t *testing.T, s Store) {
	tb := s.Table
	for _, key := range []string{"a", "b", "c"} {
		put(t, tb, key, key, table.Lazy)
	}
	stop := errors.New("stop")
	var seen []string
	err := tb.Scan(func(key string, _ []byte) error {
		if seen = append(seen, key); key == "b" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || !slices.Equal(seen, []string{"a", "b"}) {
		t.Errorf("scan: %v after %q", err, seen)
	}
	seen = nil
	err = tb.Scan(func(key string, value []byte) error {
		seen = append(seen, key+string(value))
		put(t, tb, key+"+", "new", table.Lazy)
		remove(t, tb, "c", table.Synced)
		return nil
	})
	if err != nil || !slices.Equal(seen, []string{"aa", "bb", "cc"}) {
		t.Errorf("scan: %v after %q", err, seen)
	}
	want(t, tb, pair{"a", "a"}, pair{"a+", "new"}, pair{"b", "b"}, pair{"b+", "new"}, pair{"c+", "new"})
}

// Whoever is the only one to change a key finds its own last change, and of a
// key that all change every scan finds one of the values.
func testConcurrent(t *testing.T, s Store) {
	const writers, changes = 8, 40
	tb := s.Table
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range changes {
				d := table.Durability(i%8 == w)
				key := fmt.Sprintf("%d/%d", w, i%4)
				put := tb.Put(key, []byte(fmt.Sprint(i)), d)
				shared := tb.Put("shared", []byte("shared"), table.Lazy)
				var deleted error
				if i%4 == 3 {
					deleted = tb.Delete(key, d)
				}
				if err := errors.Join(put, shared, deleted); err != nil {
					t.Errorf("writer %d, change %d: %v", w, i, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range changes {
			err := tb.Scan(func(key string, value []byte) error {
				if key == "shared" && string(value) != "shared" {
					return fmt.Errorf("the shared row is %q", value)
				}
				return nil
			})
			if err != nil {
				t.Errorf("scan: %v", err)
			}
		}
	})
	wg.Wait()
	var rows []pair
	for w := range writers {
		for i := range 3 {
			rows = append(rows, pair{fmt.Sprintf("%d/%d", w, i), fmt.Sprint(changes - 4 + i)})
		}
	}
	want(t, tb, append(rows, pair{"shared", "shared"})...)
}

// All that was answered before a table is closed is there when it is open again,
// and the closed one says so.
func testReopen(t *testing.T, s Store) {
	if s.Reopen == nil {
		t.Skip("the table cannot be closed")
	}
	const rows = 1000
	old := s.Table
	var all []pair
	for i := range rows {
		all = append(all, pair{fmt.Sprintf("%04d", i), fmt.Sprint(i)})
		put(t, old, all[i].Key, all[i].Value, table.Lazy)
	}
	again := s.Reopen()
	want(t, again, all...)
	for name, err := range map[string]error{
		"lazy put":        old.Put("k", nil, table.Lazy),
		"synced put":      old.Put("k", nil, table.Synced),
		"lazy deletion":   old.Delete("k", table.Lazy),
		"synced deletion": old.Delete("k", table.Synced),
		"scan":            old.Scan(func(string, []byte) error { return nil }),
	} {
		if !errors.Is(err, table.ErrClosed) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	want(t, again, all...)
}

// A table is a map.
func testModel(t *rapid.T, s Store) {
	tb, model := s.Table, make(map[string]string)
	keys := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "ab", "\x00", "\xff"}), rapid.StringN(1, 8, -1))
	t.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			key, value := keys.Draw(t, "key"), rapid.String().Draw(t, "value")
			put(t, tb, key, value, table.Durability(rapid.Bool().Draw(t, "synced")))
			model[key] = value
		},
		"delete": func(t *rapid.T) {
			key := keys.Draw(t, "key")
			remove(t, tb, key, table.Durability(rapid.Bool().Draw(t, "synced")))
			delete(model, key)
		},
		"reopen": func(t *rapid.T) {
			if s.Reopen == nil {
				t.Skip("the table cannot be closed")
			}
			tb = s.Reopen()
		},
		"": func(t *rapid.T) {
			var rows []pair
			for _, key := range slices.Sorted(maps.Keys(model)) {
				rows = append(rows, pair{key, model[key]})
			}
			want(t, tb, rows...)
		},
	})
}
