package presence_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/presence"
)

// crowd is who is present, and moves while somebody reads page by page.
type crowd struct {
	rights   modelRights
	registry *presence.Registry
	came     int
	there    []stay
}

// stay is one session's at a spot.
type stay struct {
	*presence.Session
	id   string
	spot int
}

// crowdMove is a step of a crowd.
type crowdMove struct {
	kind  string // come, go, change, sleep
	spot  int
	who   int // of those there
	sleep time.Duration
}

func drawCrowdMoves(t *rapid.T, label string, most int) []crowdMove {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) crowdMove {
		return crowdMove{
			kind:  rapid.SampledFrom([]string{"come", "come", "go", "change", "sleep"}).Draw(t, "kind"),
			spot:  rapid.IntRange(0, len(spots)-1).Draw(t, "spot"),
			who:   rapid.IntRange(0, 100).Draw(t, "who"),
			sleep: rapid.SampledFrom([]time.Duration{1, time.Microsecond, time.Second}).Draw(t, "sleep"),
		}
	}), 0, most).Draw(t, label)
}

func (c *crowd) move(m crowdMove) error {
	switch {
	case m.kind == "come":
		c.came++
		id := fmt.Sprint("ses_", c.came)
		s := stay{c.registry.Session(id), id, m.spot}
		c.there = append(c.there, s)
		return s.Enter(c.rights.writers["u_1"][m.spot], "h", nil)
	case m.kind == "sleep" || len(c.there) == 0:
		time.Sleep(m.sleep)
		return nil
	}
	i := m.who % len(c.there)
	s := c.there[i]
	if m.kind == "change" {
		return s.Enter(c.rights.writers["u_1"][s.spot], "h", fmt.Append(nil, c.came))
	}
	s.Close()
	c.there = slices.Delete(c.there, i, i+1)
	return nil
}

// read reads as the reader eye does, of as many members a page as limit says, with
// moves between the pages, and returns on how many pages each of the sessions was.
func (c *crowd) read(eye, limit int, moves []crowdMove) (map[string]int, error) {
	seen := make(map[string]int)
	still := len(moves) == 0
	for after := (presence.Position{}); ; {
		members, next := c.registry.Members(c.rights.readers[eye], after, limit)
		for _, m := range members {
			seen[m.SessionID]++
		}
		if next == (presence.Position{}) {
			if len(members) > limit || len(members) == 0 && len(seen) > 0 && still {
				return nil, fmt.Errorf("the last page of %d has %d members", limit, len(members))
			}
			return seen, nil
		}
		if len(members) != limit {
			return nil, fmt.Errorf("a page of %d has %d members, and is not the last", limit, len(members))
		}
		var err error
		if after, err = presence.ParsePosition(next.String()); err != nil || after != next {
			return nil, fmt.Errorf("%q is taken as %+v: %v", next, after, err)
		}
		for range min(2, len(moves)) {
			if err := c.move(moves[0]); err != nil {
				return nil, err
			}
			moves = moves[1:]
		}
	}
}

// TestPages reads who is there page by page: who is there from the first page to
// the last is on exactly one, whoever comes and goes meanwhile, and nobody is on
// two. While nobody moves, that is all of them.
func TestPages(t *testing.T) {
	rights := newModelRights(t)
	rapid.Check(t, func(rt *rapid.T) {
		first := drawCrowdMoves(rt, "first", 60)
		then := drawCrowdMoves(rt, "meanwhile", 60)
		eye := rapid.IntRange(0, len(eyes)-1).Draw(rt, "eye")
		limit := rapid.IntRange(1, 6).Draw(rt, "limit")
		var err error
		synctest.Test(t, func(*testing.T) { err = readCrowd(rights, eye, limit, first, then) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func readCrowd(rights modelRights, eye, limit int, first, then []crowdMove) error {
	c := &crowd{rights: rights, registry: presence.New(presence.Options{})}
	for _, m := range first {
		if err := c.move(m); err != nil {
			return err
		}
	}
	before := slices.Clone(c.there)
	seen, err := c.read(eye, limit, then)
	if err != nil {
		return err
	}
	for id, n := range seen {
		if n > 1 {
			return fmt.Errorf("%s is on %d pages", id, n)
		}
	}
	for _, s := range before {
		at := spots[s.spot]
		visible := eye < len(eyes)-1 && at.Home == eyes[eye].Home && at.Audience.HeldBy(eyes[eye].Audience)
		if visible && slices.Contains(c.there, s) && seen[s.id] != 1 || !visible && seen[s.id] != 0 {
			return fmt.Errorf("%s, who stayed at %+v, is on %d pages", s.id, at, seen[s.id])
		}
	}
	for _, s := range c.there {
		s.Close()
	}
	return nil
}

var positions = regexp.MustCompile(`^([0-9]+(\.[A-Za-z0-9_-]*){0,5})?$`)

// FuzzParsePosition finds that what is taken is what a page may have said.
func FuzzParsePosition(f *testing.F) {
	for _, text := range []string{"", "1", "1.", "1..", "-1", "01", "0.p", "1795459501640697.s1...p1.th1", "1.a.b.c.d.e.f", "1.é", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := presence.ParsePosition(text)
		if err != nil {
			if !hasCode(err, twinrail.CodeBadRequest, "after") {
				t.Errorf("%v", err)
			}
			return
		}
		if p.String() != text || !positions.MatchString(text) {
			t.Errorf("%q is taken as %q", text, p)
		}
	})
}
