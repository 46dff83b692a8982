package probe_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/probe"
)

var updateIsolation = flag.Bool("update-isolation", false, "have TestMatrix write the table in docs/isolation.md")

const (
	isolationFile  = "../../docs/isolation.md"
	isolationBegin = "<!-- from here on TestMatrix writes -->\n"
	isolationEnd   = "<!-- up to here -->\n"
)

// matrix collects the cells as they are played.
type matrix struct {
	mu    sync.Mutex
	cells map[string]probe.Cell // by way and key
}

// TestMatrix plays every cell of the matrix against a server in this process, as
// TestMatrix/<way>/<key>, and compares what it came to with the table in
// docs/isolation.md.
func TestMatrix(t *testing.T) {
	at := target(t)
	m := &matrix{cells: make(map[string]probe.Cell)}
	t.Cleanup(func() { // when all cells are played
		if !t.Failed() && len(m.cells) == len(probe.Ways())*len(twinrail.Keys()) {
			m.compare(t)
		}
	})
	for _, way := range probe.Ways() {
		t.Run(way, func(t *testing.T) {
			if !probe.Alone(way) {
				t.Parallel()
			}
			for _, key := range twinrail.Keys() {
				t.Run(key.String(), func(t *testing.T) {
					if !probe.Alone(way) {
						t.Parallel()
					}
					m.play(t, at, way, key)
				})
			}
		})
	}
}

func (m *matrix) play(t *testing.T, at probe.Target, way string, key twinrail.Key) {
	report, err := probe.Run(t.Context(), at, probe.Options{Ways: []string{way}, Keys: []twinrail.Key{key}, Timeout: patient, ChangeFlags: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Cells) != 1 {
		t.Fatalf("%d cells", len(report.Cells))
	}
	c := report.Cells[0]
	if c.Outcome != probe.Pass || len(c.Notes) > 0 {
		t.Errorf("%s: %s %q", c.Outcome, c.Detail, c.Notes)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cells[way+" "+key.String()] = c
}

// table returns the matrix in Markdown.
func (m *matrix) table() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, key := range twinrail.Keys() {
		fmt.Fprintf(&b, " `%s` |", key)
	}
	b.WriteString("\n| ---" + strings.Repeat(" | :---:", len(twinrail.Keys())) + " |\n")
	for _, way := range probe.Ways() {
		fmt.Fprintf(&b, "| %s |", way)
		for _, key := range twinrail.Keys() {
			mark := "✗"
			if m.cells[way+" "+key.String()].Outcome == probe.Pass {
				mark = "✓"
			}
			fmt.Fprintf(&b, " %s |", mark)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// compare compares the table with the one in the docs.
func (m *matrix) compare(t *testing.T) {
	got := m.table()
	page, err := os.ReadFile(isolationFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), isolationBegin)
	was, after, ends := strings.Cut(rest, isolationEnd)
	switch {
	case !begins || !ends:
		t.Fatalf("%s has no place for the table", isolationFile)
	case got == was:
	case *updateIsolation:
		if err := os.WriteFile(isolationFile, []byte(before+isolationBegin+got+isolationEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what happens; with -update-isolation it becomes\n%s", isolationFile, got)
	}
}
