package journaltest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

func TestFaultyWithoutFaults(t *testing.T) {
	journaltest.Run(t, func(_ testing.TB, c journaltest.Config) journal.Journal {
		return journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{Retention: c.Retention, Quota: c.Quota, DedupeWindow: c.DedupeWindow}))
	})
}

var errFault = errors.New("fault")

func TestFaultyAppend(t *testing.T) {
	f, s := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{})), journaltest.NewStream(t, "c1")
	add := func(id string) error {
		_, err := f.Append(t.Context(), []journal.Record{s.Record(id, "d")}, journal.Expect{})
		return err
	}
	f.FailAppend(2, errFault)
	f.LoseAck(3, errFault)
	for i, want := range []error{nil, errFault, errFault, nil} {
		if err := add(string(rune('a' + i))); !errors.Is(err, want) {
			t.Errorf("append %d: %v, want %v", i, err, want)
		}
	}
	entries, err := journaltest.ReadAll(t.Context(), f, s.Reader, 0)
	if err != nil || len(entries) != 3 || entries[1].ID != "c" || entries[2].ID != "d" {
		t.Errorf("stored: %v, %v; want a, c, d", entries, err)
	}
}

func TestFaultyReads(t *testing.T) {
	f, s := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{})), journaltest.NewStream(t, "c1")
	b, err := f.Bounds(t.Context(), s.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{errFault, nil} {
		f.FailReads(want)
		_, err := f.Read(t.Context(), s.Reader, 0, 1)
		_, err2 := f.Bounds(t.Context(), s.Reader)
		_, err3 := f.Seek(t.Context(), s.Reader, b.Head)
		for i, err := range []error{err, err2, err3} {
			if !errors.Is(err, want) {
				t.Errorf("call %d: %v, want %v", i, err, want)
			}
		}
	}
}

func TestFaultyStallAndLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{})), journaltest.NewStream(t, "c1")
		release := f.Stall()
		done := make(chan error, 1)
		go func() {
			_, err := f.Append(context.Background(), []journal.Record{s.Record("a", "d")}, journal.Expect{})
			done <- err
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Append(ctx, []journal.Record{s.Record("b", "d")}, journal.Expect{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a stalled append whose context ends: %v", err)
		}
		f.SetLatency(time.Minute)
		start := time.Now()
		if b, err := f.Bounds(t.Context(), s.Reader); err != nil || b.Head.Seq != 0 {
			t.Errorf("while appends are stalled the head is %+v, %v", b.Head, err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("a call took %v", took)
		}
		release()
		if err := <-done; err != nil {
			t.Errorf("the stalled append: %v", err)
		}
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("both calls took %v", took)
		}
	})
}

func TestFaultyHoldNotify(t *testing.T) {
	f, s := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{})), journaltest.NewStream(t, "c1")
	var got []uint64
	f.Notify(func(_ string, last uint64) { got = append(got, last) })
	add := func(id string) {
		if _, err := f.Append(t.Context(), []journal.Record{s.Record(id, "d")}, journal.Expect{}); err != nil {
			t.Fatal(err)
		}
	}
	add("a")
	release := f.HoldNotify()
	add("b")
	add("c")
	if len(got) != 1 {
		t.Errorf("notified of %v while notifications are held", got)
	}
	release()
	add("d")
	if len(got) != 3 || got[1] != 3 || got[2] != 4 {
		t.Errorf("notified of %v, want 1, 3, 4", got)
	}
}
