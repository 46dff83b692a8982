package server

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/presence"
)

// crowd has n actors present with a state, named from u_0 on, each in a session of
// its own.
func (r *rig) crowd(n int, at twinrail.Routing, kind twinrail.Kind, state []byte) {
	r.t.Helper()
	at.WorkspaceID, at.ProjectID, at.AppID = "w1", "p1", "studio"
	for i := range n {
		w, err := r.issuer.Context("t_acme", fmt.Sprint("u_", i)).Presenter(at, kind)
		if err != nil {
			r.t.Fatal(err)
		}
		s := r.server.presence.Session(fmt.Sprint("s_", at.PanelID, i))
		r.t.Cleanup(s.Close)
		if err := s.Enter(w, "h", state); err != nil {
			r.t.Fatal(err)
		}
	}
}

// presencePages reads page after page, as many members at a time as limit says, or as
// the server does where that is 0. It returns who was on each.
func (r *rig) presencePages(path string, limit int) (pages [][]string) {
	r.t.Helper()
	for after := ""; ; {
		page := path
		if limit > 0 {
			page += fmt.Sprint("&limit=", limit)
		}
		if after != "" {
			page += "&after=" + after
		}
		resp := r.get(page)
		if resp.status != http.StatusOK {
			r.t.Fatalf("page %d: %d %s", len(pages), resp.status, resp.body)
		}
		var got twinrail.PresenceResponse
		unmarshal(r.t, resp.body, &got)
		var names []string
		for _, m := range got.Members {
			names = append(names, m.ActorID)
		}
		pages = append(pages, names)
		if after = got.Next; after == "" {
			if bytes.Contains(resp.body, []byte("next")) {
				r.t.Errorf("the last page has a next: %.200s", resp.body)
			}
			return pages
		}
	}
}

// TestPresencePages has more members than one answer holds: page after page has
// each of them once, in the order in which they came.
func TestPresencePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const present = 2500
		r := newBubbleRig(t)
		r.crowd(present, twinrail.Routing{ThreadID: "th1"}, twinrail.ThreadStream, nil)
		r.crowd(3, twinrail.Routing{CanvasID: "c1"}, twinrail.CanvasStream, nil)
		for _, c := range []struct {
			path  string
			limit int
			want  []int // members on each page
		}{
			{"&thread_id=th1", 0, []int{1000, 1000, 500}},
			{"&thread_id=th1&panel_id=p1", 1000, []int{1000, 1000, 500}},
			{"&thread_id=th1", 500, []int{500, 500, 500, 500, 500}},
			{"&canvas_id=c1", 1, []int{1, 1, 1}},
			{"&canvas_id=c1&stream=canvas", 2, []int{2, 1}},
			{"&canvas_id=c1", 3, []int{3}},
			{"&thread_id=nobody", 0, []int{0}},
		} {
			var sizes []int
			n := 0
			for _, page := range r.presencePages(presencePath+c.path, c.limit) {
				sizes = append(sizes, len(page))
				for _, name := range page {
					if want := fmt.Sprint("u_", n); name != want {
						t.Fatalf("%s by %d: %s, want %s", c.path, c.limit, name, want)
					}
					n++
				}
			}
			if !slices.Equal(sizes, c.want) {
				t.Errorf("%s by %d: pages of %v, want %v", c.path, c.limit, sizes, c.want)
			}
		}
	})
}

// TestPresencePagesOfAnAudience pages through what a context holds: nobody else's
// presence shows, neither on a page nor in where it ends.
func TestPresencePagesOfAnAudience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.crowd(4, twinrail.Routing{CanvasID: "c1", PanelID: "p2"}, twinrail.CanvasStream, nil)
		r.crowd(2, twinrail.Routing{CanvasID: "c1"}, twinrail.CanvasStream, nil)
		r.crowd(3, twinrail.Routing{CanvasID: "c1", PanelID: "p1"}, twinrail.CanvasStream, nil)
		for panel, want := range map[string]int{"": 2, "&panel_id=p1": 5, "&panel_id=p2": 6} {
			n := 0
			pages := r.presencePages(presencePath+"&canvas_id=c1"+panel, 1)
			for _, page := range pages {
				n += len(page)
			}
			if n != want || len(pages) != want {
				t.Errorf("with %q: %d members on %d pages, want %d", panel, n, len(pages), want)
			}
		}
	})
}

// TestPresencePageIsBounded has members say as much as they may, of what JSON could
// be made to write in six times as many bytes.
func TestPresencePageIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		state := []byte(`"` + strings.Repeat("<", presence.MaxState-2) + `"`)
		r.crowd(maxPresenceLimit, twinrail.Routing{ThreadID: "th1"}, twinrail.ThreadStream, state)
		resp := r.get(presencePath + "&thread_id=th1")
		var got twinrail.PresenceResponse
		unmarshal(t, resp.body, &got)
		if len(got.Members) != maxPresenceLimit || !bytes.Equal(got.Members[0].State, state) {
			t.Errorf("%d members, of whom the first says %.20q", len(got.Members), got.Members[0].State)
		}
		if most := 3 << 20; len(resp.body) > most {
			t.Errorf("a page has %d bytes, want up to %d", len(resp.body), most)
		}
	})
}

// TestPresencePageRefused is what is no page; who may not look is not told what it
// asked wrongly.
func TestPresencePageRefused(t *testing.T) {
	r := newRig(t)
	blind := as(r.issuer.Token(authtest.Grants(twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", ThreadID: "*", Can: []string{"presence:write"}})))
	for query, field := range map[string]string{
		"&limit=0": "limit", "&limit=1001": "limit", "&limit=-1": "limit", "&limit=all": "limit", "&limit=1.0": "limit",
		"&after=x": "after", "&after=0": "after", "&after=-5": "after", "&after=earliest": "after", "&after=1.": "after",
		"&after=01": "after", "&after=1.p1/": "after", "&after=1.a.b.c.d.e.f": "after", "&after=99999999999999999999": "after",
	} {
		if p := problemOf(t, r.get(presencePath+"&thread_id=th1"+query), twinrail.CodeBadRequest); p.Field != field {
			t.Errorf("%s: field %q, want %q", query, p.Field, field)
		}
		problemOf(t, r.do("GET", presencePath+"&thread_id=th1"+query, "", blind), twinrail.CodeNotFound)
	}
}
