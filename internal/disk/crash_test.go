package disk_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
)

// crashRounds is how often TestCrash kills; TWINRAIL_CRASH_ROUNDS sets another
// number.
const crashRounds = 20

// The environment by which TestCrash makes this binary its victim.
const (
	crashDir   = "TWINRAIL_CRASH_DIR"
	crashRound = "TWINRAIL_CRASH_ROUND"
)

// crashRetention has trims under way when the victim dies.
var crashRetention = journal.Retention{Count: 300}

// TestCrash kills a process with SIGKILL that appends from many writers, again
// and again, and looks after each time at what is there.
func TestCrash(t *testing.T) {
	if os.Getenv(crashDir) != "" {
		victim(t)
		return
	}
	rounds := crashRounds
	if n, err := strconv.Atoi(os.Getenv("TWINRAIL_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	dir, l := t.TempDir(), newLoad(t)
	for round := range rounds {
		before := len(l.acked)
		kill(t, dir, round, l)
		if len(l.acked) == before {
			t.Fatalf("round %d: nothing was acknowledged", round)
		}
		j := mustOpen(t, dir, disk.Options{Retention: crashRetention})
		check(t, j, l.streams, l.acked)
		if err := j.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		if t.Failed() {
			t.Fatalf("after round %d", round)
		}
	}
	t.Logf("%d rounds, %d events acknowledged", rounds, len(l.acked))
}

// victim appends until it is killed. It tells of each acknowledged event after
// it was acknowledged, never before.
func victim(t *testing.T) {
	round, err := strconv.Atoi(os.Getenv(crashRound))
	if err != nil {
		t.Fatal(err)
	}
	j := mustOpen(t, os.Getenv(crashDir), disk.Options{Retention: crashRetention, SweepInterval: 10 * time.Millisecond})
	l := newLoad(t)
	l.onAck = func(id string, r journal.Result) {
		fmt.Fprintf(os.Stdout, "ack %s %s %d\n", id, r.Cursor, r.Prev) // one write
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // should its parent be gone
	defer cancel()
	t.Fatal(l.run(ctx, j, round))
}

// kill runs a victim, kills it after it has told of a random number of events and
// a random time, and adds what it told of to l.
func kill(t *testing.T, dir string, round int, l *load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCrash$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashRound+"="+strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told, limit := 0, 1+rand.IntN(800)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a line that was cut is not one
		}
		if err != nil {
			t.Fatal(err)
		}
		l.told(t, line)
		if told++; told == limit {
			// Not from this goroutine, which goes on emptying the pipe.
			time.AfterFunc(time.Duration(rand.IntN(int(3*time.Millisecond))), func() { cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil || told < limit {
		t.Fatalf("the victim told of %d events and ended by itself: %v", told, err)
	}
}

// told takes a line of the victim's.
func (l *load) told(t *testing.T, line string) {
	t.Helper()
	var id, text string
	var r journal.Result
	if _, err := fmt.Sscanf(line, "ack %s %s %d\n", &id, &text, &r.Prev); err != nil {
		t.Fatalf("the victim says %q: %v", line, err)
	}
	c, err := twinrail.ParseCursor(text)
	if err != nil {
		t.Fatalf("the victim says %q: %v", line, err)
	}
	r.Seq, r.Cursor = c.Seq, c
	l.acked[id] = r
}
