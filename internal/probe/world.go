package probe

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/twinrail/twinrail"
)

// world is what a cell is played in: addresses that nobody else has, parties, and
// what each of them is not to see. It belongs to one goroutine.
type world struct {
	*runner
	key      twinrail.Key
	name     string // that of this world, with which all its values begin
	values   int    // given out
	parties  []*party
	canaries []*canary
	leaks    []string
	left     []string // what could not be put back
	notes    []string
}

func newWorld(r *runner, key twinrail.Key) *world {
	return &world{runner: r, key: key, name: "probe_" + random()}
}

// random returns what nobody can guess: 26 of a-z 2-7.
func random() string { return strings.ToLower(rand.Text()) }

// fresh returns a value for a key that was never used.
func (w *world) fresh() string {
	w.values++
	return fmt.Sprintf("%s_%d", w.name, w.values)
}

func (w *world) close() {
	for _, p := range w.parties {
		p.close()
	}
}

// leak notes that somebody received, learned or did what was not theirs.
func (w *world) leak(format string, args ...any) {
	if l := fmt.Sprintf(format, args...); !slices.Contains(w.leaks, l) {
		w.leaks = append(w.leaks, l)
	}
}

// note notes that something could not be tried.
func (w *world) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(w.notes, n) {
		w.notes = append(w.notes, n)
	}
}

// leftBehind notes that something is not as it was before the cell. Whatever else
// the cell comes to, it says so, and it does not pass.
func (w *world) leftBehind(err error) {
	if err != nil {
		w.left = append(w.left, err.Error())
	}
}

// verdict is what the cell came to, given what its way returned.
func (w *world) verdict(err error) (Outcome, string) {
	switch {
	case len(w.leaks) > 0:
		return Leak, strings.Join(append(w.leaks, w.left...), "; ")
	case err == nil && len(w.left) == 0:
		return Pass, ""
	case isUnavailable(err) && len(w.left) == 0:
		return Skipped, err.Error()
	case err == nil:
		return Broken, strings.Join(w.left, "; ")
	}
	return Broken, strings.Join(append([]string{err.Error()}, w.left...), "; ")
}

// canary is a random string that only some parties may see.
type canary struct {
	text    string
	what    string // what it stands for, as in: the event for another panel
	readers []*party
}

// canary returns a new one that only readers may see: letters and digits, so that
// it can stand in data, ids, types, states and values of keys.
func (w *world) canary(what string, readers ...*party) *canary {
	c := &canary{"canary" + random(), what, readers}
	w.canaries = append(w.canaries, c)
	return c
}

// search looks through all that the parties ever received for what they may not
// see.
func (w *world) search() {
	for _, p := range w.parties {
		for _, c := range w.canaries {
			if slices.Contains(c.readers, p) {
				continue
			}
			for _, r := range p.records {
				if bytes.Contains(r.Bytes(), []byte(c.text)) {
					w.leak("%s saw %s in %s", p.name, c.what, r.where)
				}
			}
		}
	}
}

// address returns an address of side A, all keys given, that was never used. It
// names a canvas stream and a thread stream; what is no home key of the one is an
// audience key of it.
func (w *world) address() twinrail.Routing {
	base := w.tokens.Base(SideA)
	r := twinrail.Routing{TenantID: base.TenantID, Env: base.Env}
	for _, k := range twinrail.Keys() {
		if r.Get(k) == "" {
			r.Set(k, w.fresh())
		}
	}
	r.ActorID = cmp.Or(base.ActorID, r.ActorID)
	return r
}

// other returns the address that differs from r in the cell's key alone. (With
// fixed tokens the actor differs between tenants too.) Where there is none, the
// error is that of [unavailable].
func (w *world) other(r twinrail.Routing) (twinrail.Routing, error) {
	a, b := w.tokens.Base(SideA), w.tokens.Base(SideB)
	switch w.key {
	case twinrail.KeyTenant:
		if a.TenantID == b.TenantID {
			return r, unavailable("needs tokens of two tenants")
		}
		r.TenantID, r.Env, r.ActorID = b.TenantID, b.Env, cmp.Or(b.ActorID, r.ActorID)
	case twinrail.KeyEnv:
		if r.Env = w.tokens.OtherEnv(); r.Env == "" {
			return r, unavailable("needs tokens of one tenant in two envs")
		}
		if b.TenantID == a.TenantID {
			r.ActorID = cmp.Or(b.ActorID, r.ActorID)
		}
	default:
		r.Set(w.key, w.fresh())
	}
	return r, nil
}

// nowhere returns an address that differs from r in the cell's key alone, and at
// which there is nothing. Nobody has a token for it.
func (w *world) nowhere(r twinrail.Routing) twinrail.Routing {
	v := w.fresh()
	if w.key == twinrail.KeyTenant {
		v = "t_" + v
	}
	r.Set(w.key, v)
	return r
}

// audienceOf reports whether the cell's key narrows who receives an event in a
// stream of the kind.
func (w *world) audienceOf(kind twinrail.Kind) bool {
	var r twinrail.Routing
	r.Set(w.key, "x")
	return r.Audience(kind) != twinrail.Audience{}
}

// own reports whether the key is one that a credential settles.
func (w *world) own() bool {
	return w.key == twinrail.KeyTenant || w.key == twinrail.KeyEnv || w.key == twinrail.KeyActor
}

// grantOf returns the grant of just that address.
func grantOf(r twinrail.Routing, can ...string) twinrail.Grant {
	return twinrail.Grant{
		WorkspaceID: r.WorkspaceID, ProjectID: r.ProjectID, AppID: r.AppID, SurfaceID: r.SurfaceID,
		CanvasID: r.CanvasID, ProjectionID: r.ProjectionID, PanelID: r.PanelID, ThreadID: r.ThreadID, Can: can,
	}
}

// homeOf returns the home keys of r for a stream of the kind.
func homeOf(r twinrail.Routing, kind twinrail.Kind) twinrail.Routing {
	h, _ := r.Home(kind) // all keys are given
	return h.Routing()
}
