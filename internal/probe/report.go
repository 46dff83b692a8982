package probe

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// Outcome is what a cell came to.
type Outcome string

// The outcomes.
const (
	// Pass: the right party got it, and nobody else did.
	Pass Outcome = "pass"
	// Leak: somebody received, learned or did what was not theirs.
	Leak Outcome = "leak"
	// Broken: the right party did not get it either, or the barrier never came.
	// The cell proves nothing.
	Broken Outcome = "broken"
	// Skipped: what it takes was not there, such as a signing key.
	Skipped Outcome = "skipped"
)

// Cell is a key and a way in.
type Cell struct {
	Way     string  `json:"way"`
	Key     string  `json:"key"`
	Outcome Outcome `json:"outcome"`
	// Detail says what was seen where, or why there is nothing to say.
	Detail string `json:"detail,omitempty"`
	// Notes say what of the cell could not be tried.
	Notes []string      `json:"notes,omitempty"`
	Took  time.Duration `json:"took_ns"`

	way *way
	key twinrail.Key
}

// Report is what became of all cells that were asked for: way by way, and of each
// the keys in their order.
type Report struct {
	Target string `json:"target"`
	Cells  []Cell `json:"cells"`
}

// Of returns the cells with that outcome.
func (r *Report) Of(o Outcome) (cells []Cell) {
	for _, c := range r.Cells {
		if c.Outcome == o {
			cells = append(cells, c)
		}
	}
	return cells
}

// Leaks returns the cells that leak.
func (r *Report) Leaks() []Cell { return r.Of(Leak) }

// Broken returns the cells that prove nothing, although they should.
func (r *Report) Broken() []Cell { return r.Of(Broken) }

// marks are the outcomes as the table has them.
var marks = map[Outcome]string{Pass: "pass", Leak: "LEAK", Broken: "BROKEN", Skipped: "skip", "": ""}

// headings are the keys as the table has them: at most seven wide.
var headings = map[twinrail.Key]string{
	twinrail.KeyTenant: "tenant", twinrail.KeyEnv: "env", twinrail.KeyWorkspace: "wkspace", twinrail.KeyProject: "project",
	twinrail.KeyApp: "app", twinrail.KeySurface: "surface", twinrail.KeyCanvas: "canvas", twinrail.KeyProjection: "projctn",
	twinrail.KeyPanel: "panel", twinrail.KeyThread: "thread", twinrail.KeyActor: "actor",
}

// remarks are what is said of cells below the table: once for all keys of a way of
// which there is the same to say, or, with no way, once for all cells.
type remarks []remark

type remark struct {
	about, way, text string
	keys             []string
}

func (r *remarks) add(about, way, key, text string) {
	i := slices.IndexFunc(*r, func(m remark) bool { return m.about == about && m.way == way && m.text == text })
	if i < 0 {
		i = len(*r)
		*r = append(*r, remark{about: about, way: way, text: text})
	}
	(*r)[i].keys = append((*r)[i].keys, key)
}

func (m *remark) String() string {
	where := m.way + ", " + strings.Join(m.keys, ", ")
	switch {
	case m.way == "" && len(m.keys) == 1:
		where = "1 cell"
	case m.way == "":
		where = fmt.Sprintf("%d cells", len(m.keys))
	case len(m.keys) == len(twinrail.Keys()):
		where = m.way + ", all keys"
	}
	return fmt.Sprintf("%s: %s: %s\n", m.about, where, m.text)
}

// remarks returns why cells are not a pass, and what of those that are could not be
// tried.
func (r *Report) remarks() (said remarks) {
	for _, o := range []Outcome{Leak, Broken} {
		for _, c := range r.Of(o) {
			said.add(strings.ToUpper(string(o)), c.Way, c.Key, c.Detail)
		}
	}
	for _, c := range r.Of(Skipped) {
		said.add("SKIPPED", "", c.Key, c.Detail)
	}
	for _, c := range r.Cells {
		for _, note := range c.Notes {
			said.add("NOT TRIED", "", c.Key, note)
		}
	}
	return said
}

// WriteText writes a table for people, 100 columns wide at most, and below it why
// a cell is not a pass, and what of one that is could not be tried.
func (r *Report) WriteText(out io.Writer) error {
	var b strings.Builder
	at := make(map[string]Outcome)
	for _, c := range r.Cells {
		at[c.Way+" "+c.Key] = c.Outcome
	}
	row := func(first string, column func(twinrail.Key) string) {
		line := fmt.Sprintf("%-17s", first)
		for _, k := range twinrail.Keys() {
			line += fmt.Sprintf(" %-*s", max(len(headings[k]), 6), column(k))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	row("", func(k twinrail.Key) string { return headings[k] })
	for _, way := range Ways() {
		if !slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Way == way }) {
			continue
		}
		row(way, func(k twinrail.Key) string { return marks[at[way+" "+k.String()]] })
	}
	b.WriteString("\n")
	said := r.remarks()
	for i := range said {
		b.WriteString(said[i].String())
	}
	for _, o := range []Outcome{Pass, Leak, Broken, Skipped} {
		fmt.Fprintf(&b, "%d %s  ", len(r.Of(o)), o)
	}
	_, err := io.WriteString(out, strings.TrimRight(b.String(), " ")+"\n")
	return err
}
