package twinrail_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

var kinds = []twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream}

// wantError fails unless err is an Error with the code, "" for none, and field.
func wantError(t interface {
	Helper()
	Errorf(string, ...any)
}, err error, code twinrail.Code, field string) {
	t.Helper()
	var e *twinrail.Error
	switch {
	case code == "" && err == nil:
	case !errors.As(err, &e) || e.Code != code || e.Field != field:
		t.Errorf("got error %v, want %q about %q", err, code, field)
	}
}

func TestKeyNames(t *testing.T) {
	want := strings.Fields("tenant_id env workspace_id project_id app_id surface_id canvas_id projection_id panel_id thread_id actor_id")
	keys := twinrail.Keys()
	if fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Fatalf("the keys are %v", keys)
	}
	for i, k := range keys {
		header := http.CanonicalHeaderKey("x-" + strings.ReplaceAll(want[i], "_", "-"))
		if k.Header() != header {
			t.Errorf("%s is carried by %s, want %s", k, k.Header(), header)
		}
		var r twinrail.Routing
		r.Set(k, "v")
		text, err := json.Marshal(r)
		if err != nil || string(text) != fmt.Sprintf(`{"%s":"v"}`, want[i]) || r.Get(k) != "v" {
			t.Errorf("%s alone is %s, %v", k, text, err)
		}
	}
}

func TestValidKeyValue(t *testing.T) {
	general := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z`)
	tenant := regexp.MustCompile(`\At_[a-z0-9_-]{1,62}\z`)
	values := []string{
		"", "a", "A", "0", "_", "-", "_a", "-a", "a_", "a-", "t_", "t_a", "T_a", "t_A", "t-a", "t__", "t_-", "t_0", "t_a\n", "\nt_a", "acme", "*", "tt_a",
		strings.Repeat("a", 64), strings.Repeat("a", 65), "t_" + strings.Repeat("a", 62), "t_" + strings.Repeat("a", 63),
	}
	for c := range 256 {
		values = append(values, string([]byte{byte(c)}), string([]byte{'a', byte(c)}), string([]byte{'t', '_', byte(c)}), string([]byte{'t', byte(c), 'a'}))
	}
	for _, k := range twinrail.Keys() {
		form := general
		if k == twinrail.KeyTenant {
			form = tenant
		}
		for _, v := range values {
			if got, want := twinrail.ValidKeyValue(k, v), form.MatchString(v); got != want {
				t.Errorf("%s %q: got %t", k, v, got)
			}
			var r twinrail.Routing
			r.Set(k, v)
			want, field := twinrail.CodeContextInvalid, k.String()
			if v == "" || form.MatchString(v) {
				want, field = "", ""
			}
			wantError(t, r.Validate(), want, field)
		}
	}
	all := twinrail.Routing{PanelID: "-", WorkspaceID: "-", ActorID: "-"}
	wantError(t, all.Validate(), twinrail.CodeContextInvalid, "workspace_id")
}

func TestMerge(t *testing.T) {
	for _, k := range twinrail.Keys() {
		var a, b twinrail.Routing
		a.Set(k, "x")
		b.Set(k, "y")
		for _, each := range [][2]twinrail.Routing{{a, {}}, {{}, a}, {a, a}} {
			if got, err := each[0].Merge(each[1]); err != nil || got != a {
				t.Errorf("%s: got %+v, %v", k, got, err)
			}
		}
		got, err := a.Merge(b)
		wantError(t, err, twinrail.CodeContextConflict, k.String())
		if got != (twinrail.Routing{}) {
			t.Errorf("%s: got %+v in spite of a conflict", k, got)
		}
	}
}

// full states every key.
func full() twinrail.Routing {
	return twinrail.Routing{
		TenantID: "t_a", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a",
		SurfaceID: "s", CanvasID: "c", ProjectionID: "j", PanelID: "l", ThreadID: "t", ActorID: "u",
	}
}

func TestHomeAndAudience(t *testing.T) {
	canvas, err := full().Address(twinrail.CanvasStream)
	wantCanvas := twinrail.Address{
		Home:     twinrail.Home{Kind: 'c', TenantID: "t_a", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a", ID: "c"},
		Audience: twinrail.Audience{SurfaceID: "s", ProjectionID: "j", PanelID: "l", ThreadID: "t"},
	}
	if err != nil || canvas != wantCanvas {
		t.Errorf("got %+v, %v", canvas, err)
	}
	thread, err := full().Address(twinrail.ThreadStream)
	wantThread := twinrail.Address{
		Home:     twinrail.Home{Kind: 't', TenantID: "t_a", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a", ID: "t"},
		Audience: twinrail.Audience{SurfaceID: "s", CanvasID: "c", ProjectionID: "j", PanelID: "l"},
	}
	if err != nil || thread != wantThread {
		t.Errorf("got %+v, %v", thread, err)
	}
	if canvas.Key() != "c/t_a/dev/w/p/a/c/s//j/l/t/" || canvas.Home.Key() != "c/t_a/dev/w/p/a/c/" || thread.Key() != "t/t_a/dev/w/p/a/t/s/c/j/l//" {
		t.Errorf("the keys are %s, %s, %s", canvas.Key(), canvas.Home.Key(), thread.Key())
	}
	odd := twinrail.Home{Kind: 't', TenantID: "a/=\x00é", Env: "=2F"}
	if got := odd.Key(); got != "t/a=2F=3D=00=C3=A9/=3D2F/////" {
		t.Errorf("got %s", got)
	}
	home := map[twinrail.Key]bool{
		twinrail.KeyTenant: true, twinrail.KeyEnv: true, twinrail.KeyWorkspace: true, twinrail.KeyProject: true, twinrail.KeyApp: true,
	}
	for _, kind := range kinds {
		for _, k := range twinrail.Keys() {
			r := full()
			r.Set(k, "")
			want, field := twinrail.Code(""), ""
			if home[k] || (k == twinrail.KeyCanvas && kind == 'c') || (k == twinrail.KeyThread && kind == 't') {
				want, field = twinrail.CodeContextMissing, k.String()
			}
			_, err := r.Address(kind)
			wantError(t, err, want, field)
		}
	}
	if twinrail.CanvasStream.String() != "canvas" || twinrail.ThreadStream.String() != "thread" || twinrail.Kind('x').String() != "Kind(120)" {
		t.Error("the kinds have other names")
	}
}

// drawValue draws a valid value, often one of a few, so that values meet.
func drawValue(t *rapid.T, k twinrail.Key) string {
	form := `[A-Za-z0-9][A-Za-z0-9_-]{0,5}|a|a-|a_`
	if k == twinrail.KeyTenant {
		form = `t_[a-z0-9_-]{1,5}|t_a|t_a_`
	}
	return rapid.StringMatching(form).Draw(t, k.String())
}

func drawRouting(t *rapid.T) twinrail.Routing {
	var r twinrail.Routing
	for _, k := range twinrail.Keys() {
		r.Set(k, drawValue(t, k))
	}
	for _, k := range []twinrail.Key{twinrail.KeySurface, twinrail.KeyProjection, twinrail.KeyPanel} {
		if rapid.Bool().Draw(t, "without "+k.String()) {
			r.Set(k, "")
		}
	}
	return r
}

func TestAddressKeepsTheRouting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRouting(t)
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		a, err := r.Address(kind)
		if err != nil {
			t.Fatal(err)
		}
		want := r
		want.ActorID = ""
		if got := a.Routing(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		home, err := a.Home.Routing().Home(kind)
		if err != nil || home != a.Home {
			t.Errorf("got %+v, %v; want %+v", home, err, a.Home)
		}
		if parsed, err := twinrail.ParseHomeKey(a.Home.Key()); err != nil || parsed != a.Home {
			t.Errorf("%s parses as %+v, %v", a.Home.Key(), parsed, err)
		}
	})
}

// cut cuts s into n pieces, of which cuts gives the lengths.
func cut(s string, cuts []byte, n int) []string {
	pieces := make([]string, n)
	for i := range pieces {
		length := len(s)
		if i < n-1 {
			length = 0
			if i < len(cuts) {
				length = min(int(cuts[i]), len(s))
			}
		}
		pieces[i], s = s[:length], s[length:]
	}
	return pieces
}

func addressOf(kind byte, p []string) twinrail.Address {
	return twinrail.Address{
		Home:     twinrail.Home{Kind: twinrail.Kind(kind), TenantID: p[0], Env: p[1], WorkspaceID: p[2], ProjectID: p[3], AppID: p[4], ID: p[5]},
		Audience: twinrail.Audience{SurfaceID: p[6], CanvasID: p[7], ProjectionID: p[8], PanelID: p[9], ThreadID: p[10]},
	}
}

// FuzzHomeKey cuts two strings into addresses, any bytes and all, and wants
// different ones to have keys that differ and of which none is a prefix of the
// other. With one string cut in two ways it finds what joining gets wrong.
func FuzzHomeKey(f *testing.F) {
	f.Add("t_acme_x1", "t_acme_x1", []byte{6, 1}, []byte{4, 3}, byte('c'), byte('c'), "c/t_a/dev/w/p/a/c/")
	f.Add("x/y", "x/y", []byte{2, 1}, []byte{1, 2}, byte('c'), byte('c'), "t/t_a/dev/w/p/a/c/")
	f.Add("a=2Fb", "a/b", []byte{5}, []byte{3}, byte('c'), byte('c'), "c/t_a/dev/w/p/a/=41/")
	f.Add("", "\x00", []byte{}, []byte{0}, byte('/'), byte(0), "//")
	f.Fuzz(func(t *testing.T, s1, s2 string, cuts1, cuts2 []byte, kind1, kind2 byte, text string) {
		const n = 11
		a, b := addressOf(kind1, cut(s1, cuts1, n)), addressOf(kind2, cut(s2, cuts2, n))
		for _, pair := range [][2]twinrail.Address{{a, b}, {a, addressOf(kind2, cut(s1, cuts2, n))}} {
			x, y := pair[0], pair[1]
			if (x == y) != (x.Key() == y.Key()) || (x.Home == y.Home) != (x.Home.Key() == y.Home.Key()) {
				t.Errorf("%+v is %q\n%+v is %q", x, x.Key(), y, y.Key())
			}
			if x != y && strings.HasPrefix(x.Key(), y.Key()) || x.Home != y.Home && strings.HasPrefix(x.Home.Key(), y.Home.Key()) {
				t.Errorf("%q begins with %q, or the home does", x.Key(), y.Key())
			}
			if !strings.HasPrefix(x.Key(), x.Home.Key()) {
				t.Errorf("%q does not begin with its home's %q", x.Key(), x.Home.Key())
			}
		}
		if home, err := twinrail.ParseHomeKey(text); err == nil && home.Key() != text {
			t.Errorf("%q parses as %+v, which is %q", text, home, home.Key())
		}
		if home, err := twinrail.ParseHomeKey(a.Home.Key()); err == nil && home != a.Home {
			t.Errorf("%q parses as %+v, not %+v", a.Home.Key(), home, a.Home)
		}
	})
}

func TestParseHomeKeyRefuses(t *testing.T) {
	const good = "c/t_a/dev/w/p/a/c/"
	if _, err := twinrail.ParseHomeKey(good); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"", "/", good[1:], good[:len(good)-1], good + "/", good + "x", "x" + good, "x" + good[1:], "cc" + good[1:],
		"c/acme/dev/w/p/a/c/", "c/t_a//w/p/a/c/", "c/t_a/dev/w/p/a//", "c/t_a/dev/w/p/a/=41/", "c/t_a/dev/w/p/a/c=/", "c/t_a/dev/w/p/c/",
	} {
		if home, err := twinrail.ParseHomeKey(key); err == nil {
			t.Errorf("%q parses as %+v", key, home)
		}
	}
}

// TestHeldBy compares the match rule with its own words.
func TestHeldBy(t *testing.T) {
	value := rapid.SampledFrom([]string{"", "a", "b"})
	draw := func(t *rapid.T) (a twinrail.Audience) {
		a.SurfaceID, a.CanvasID, a.ProjectionID = value.Draw(t, "surface"), value.Draw(t, "canvas"), value.Draw(t, "projection")
		a.PanelID, a.ThreadID = value.Draw(t, "panel"), value.Draw(t, "thread")
		return a
	}
	rapid.Check(t, func(t *rapid.T) {
		named, held := draw(t), draw(t)
		if rapid.Bool().Draw(t, "one of them differs") { // else hardly any match
			held = named
			held.PanelID = value.Draw(t, "the panel held")
		}
		want := true
		for i, v := range named.Values() {
			if v != "" && held.Values()[i] != v {
				want = false
			}
		}
		if got := named.HeldBy(held); got != want {
			t.Errorf("%+v held by %+v: %t", named, held, got)
		}
	})
	for i, field := range []func(*twinrail.Audience) *string{
		func(a *twinrail.Audience) *string { return &a.SurfaceID },
		func(a *twinrail.Audience) *string { return &a.CanvasID },
		func(a *twinrail.Audience) *string { return &a.ProjectionID },
		func(a *twinrail.Audience) *string { return &a.PanelID },
		func(a *twinrail.Audience) *string { return &a.ThreadID },
	} {
		var named, other twinrail.Audience
		*field(&named), *field(&other) = "a", "b"
		if named.HeldBy(twinrail.Audience{}) || named.HeldBy(other) || !named.HeldBy(named) || !(twinrail.Audience{}).HeldBy(named) {
			t.Errorf("the audience key %d alone decides otherwise", i)
		}
	}
}
