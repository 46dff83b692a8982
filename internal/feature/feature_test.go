package feature_test

import (
	"slices"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/feature"
)

// What a flag is goes from the tenant's own setting, where that may be, to
// Tenant-0's, to what is built in.
func TestResolution(t *testing.T) {
	type step func(*rig)
	platform := func(value string, overridable ...bool) step {
		return func(r *rig) { r.set(tenant0, "dev", "replay", value, overridable...) }
	}
	own := func(value string) step { return func(r *rig) { r.set("t_acme", "dev", "replay", value) } }
	unset := func(tenant string) step { return func(r *rig) { r.unset(tenant, "dev", "replay") } }
	for name, tt := range map[string]struct {
		steps        []step
		acme, others string // what replay is for t_acme, and for others; in prod it stays built in
	}{
		"built in":                     {nil, "true default", "true default"},
		"own":                          {[]step{own("false")}, "false tenant", "true default"},
		"own, like the built-in":       {[]step{own("true")}, "true tenant", "true default"},
		"own, no more":                 {[]step{own("false"), unset("t_acme")}, "true default", "true default"},
		"Tenant-0":                     {[]step{platform("false")}, "false tenant0", "false tenant0"},
		"Tenant-0, no more":            {[]step{platform("false", false), unset(tenant0)}, "true default", "true default"},
		"own over Tenant-0":            {[]step{platform("false"), own("true")}, "true tenant", "false tenant0"},
		"own, then Tenant-0":           {[]step{own("true"), platform("false")}, "true tenant", "false tenant0"},
		"locked":                       {[]step{platform("false", false)}, "false tenant0 locked", "false tenant0 locked"},
		"locked later":                 {[]step{own("true"), platform("false", false)}, "false tenant0 locked overruled:true", "false tenant0 locked"},
		"locked, own gone":             {[]step{own("true"), platform("false", false), unset("t_acme")}, "false tenant0 locked", "false tenant0 locked"},
		"locked, and opened again":     {[]step{own("true"), platform("false", false), platform("false", true)}, "true tenant", "false tenant0"},
		"locked, and unset again":      {[]step{own("false"), platform("true", false), unset(tenant0)}, "false tenant", "true default"},
		"a value leaves the lock":      {[]step{platform("true", false), platform("false")}, "false tenant0 locked", "false tenant0 locked"},
		"an end of it ends the lock":   {[]step{platform("true", false), unset(tenant0), platform("false")}, "false tenant0", "false tenant0"},
		"Tenant-0 has none of its own": {[]step{platform("false", true), platform("true")}, "true tenant0", "true tenant0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for _, step := range tt.steps {
				step(r)
			}
			for tenant, want := range map[string]string{"t_acme": tt.acme, "t_other": tt.others, tenant0: tt.others} {
				if got := r.flag(tenant, "dev", "replay"); got != want {
					t.Errorf("for %s it is %q, want %q", tenant, got, want)
				}
				if got := r.flag(tenant, "prod", "replay"); got != "true default" {
					t.Errorf("for %s in prod it is %q", tenant, got)
				}
				flags := builtIn
				flags.Replay = want[0] == 't'
				wantFlags(t, r.s.Flags(tenant, "dev"), flags)
			}
		})
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	flags, err := r.s.List(r.as("t_acme", "dev", twinrail.Owner))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range flags {
		if f.Name != names[i] || string(f.Value) != initial[i] || string(f.Default) != initial[i] {
			t.Errorf("flag %d is %+v", i, f)
		}
	}
	if len(flags) != len(names) {
		t.Errorf("there are %d flags", len(flags))
	}
	set := r.set("t_acme", "dev", "gesture_rate", " 1000\n")
	if string(set.Value) != "1000" || string(set.Default) != "30" {
		t.Errorf("set returns %+v", set)
	}
	want := []string{"ws_enabled=true default", "sse_enabled=true default", "gesture_fanout=false default", "gesture_rate=1000 tenant", "replay=true default"}
	if got := r.list("t_acme", "dev"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Each flag is the member of [feature.Flags] that it should be.
func TestMembers(t *testing.T) {
	for name, tt := range map[string]struct {
		value string
		apply func(*feature.Flags)
	}{
		"ws_enabled":     {"false", func(f *feature.Flags) { f.WS = false }},
		"sse_enabled":    {"false", func(f *feature.Flags) { f.SSE = false }},
		"gesture_fanout": {"true", func(f *feature.Flags) { f.GestureFanout = true }},
		"gesture_rate":   {"60", func(f *feature.Flags) { f.GestureRate = 60 }},
		"replay":         {"false", func(f *feature.Flags) { f.Replay = false }},
	} {
		r := newRig(t)
		r.set("t_acme", "dev", name, tt.value)
		want := builtIn
		tt.apply(&want)
		wantFlags(t, r.s.Flags("t_acme", "dev"), want)
		wantFlags(t, r.s.Flags("t_acme", "prod"), builtIn)
		wantFlags(t, r.s.Flags("t_other", "dev"), builtIn)
		for _, rail := range []twinrail.Rail{twinrail.RailWS, twinrail.RailSSE, ""} {
			off := name == "ws_enabled" && rail == twinrail.RailWS || name == "sse_enabled" && rail == twinrail.RailSSE
			if want.AllowsRail(rail) == off {
				t.Errorf("%s: the rail %q is on: %v", name, rail, !off)
			}
		}
	}
}

// Whatever is refused changes nothing, is told to nobody, and is not logged.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		tenant  string
		role    twinrail.Role
		flag    string
		request twinrail.FlagRequest
		code    twinrail.Code
		field   string
	}{
		"member":                    {"t_acme", twinrail.Member, "replay", request("false"), twinrail.CodeNotFound, ""},
		"viewer":                    {"t_acme", twinrail.Viewer, "replay", request("false"), twinrail.CodeNotFound, ""},
		"member of Tenant-0":        {tenant0, twinrail.Member, "replay", request("false"), twinrail.CodeNotFound, ""},
		"member, and no such flag":  {"t_acme", twinrail.Member, "repla", request("false"), twinrail.CodeNotFound, ""},
		"no such flag":              {"t_acme", twinrail.Owner, "repla", request("false"), twinrail.CodeNotFound, ""},
		"no name":                   {"t_acme", twinrail.Owner, "", request("false"), twinrail.CodeNotFound, ""},
		"another case":              {"t_acme", twinrail.Owner, "Replay", request("false"), twinrail.CodeNotFound, ""},
		"no value":                  {"t_acme", twinrail.Owner, "replay", twinrail.FlagRequest{}, twinrail.CodeBadRequest, "value"},
		"no JSON":                   {"t_acme", twinrail.Owner, "replay", request("falsey"), twinrail.CodeBadRequest, "value"},
		"null":                      {"t_acme", twinrail.Owner, "replay", request("null"), twinrail.CodeBadRequest, "value"},
		"a number for a boolean":    {"t_acme", twinrail.Owner, "replay", request("0"), twinrail.CodeBadRequest, "value"},
		"a string for a boolean":    {"t_acme", twinrail.Owner, "replay", request(`"false"`), twinrail.CodeBadRequest, "value"},
		"null for a number":         {"t_acme", twinrail.Owner, "gesture_rate", request("null"), twinrail.CodeBadRequest, "value"},
		"a boolean for a number":    {"t_acme", twinrail.Owner, "gesture_rate", request("true"), twinrail.CodeBadRequest, "value"},
		"false for a number":        {"t_acme", twinrail.Owner, "gesture_rate", request("false"), twinrail.CodeBadRequest, "value"},
		"a string for a number":     {"t_acme", twinrail.Owner, "gesture_rate", request(`"30"`), twinrail.CodeBadRequest, "value"},
		"not JSON for a number":     {"t_acme", twinrail.Owner, "gesture_rate", request("007"), twinrail.CodeBadRequest, "value"},
		"no integer":                {"t_acme", twinrail.Owner, "gesture_rate", request("30.5"), twinrail.CodeBadRequest, "value"},
		"too small":                 {"t_acme", twinrail.Owner, "gesture_rate", request("0"), twinrail.CodeBadRequest, "value"},
		"negative":                  {"t_acme", twinrail.Owner, "gesture_rate", request("-30"), twinrail.CodeBadRequest, "value"},
		"too large":                 {"t_acme", twinrail.Owner, "gesture_rate", request("1001"), twinrail.CodeBadRequest, "value"},
		"far too large":             {tenant0, twinrail.Owner, "gesture_rate", request("99999999999999999999"), twinrail.CodeBadRequest, "value"},
		"overridable by a tenant":   {"t_acme", twinrail.Owner, "replay", request("false", true), twinrail.CodeBadRequest, "overridable"},
		"unoverridable by a tenant": {"t_acme", twinrail.Owner, "replay", request("false", false), twinrail.CodeBadRequest, "overridable"},
		"locked":                    {"t_acme", twinrail.Owner, "sse_enabled", request("true"), twinrail.CodeBadRequest, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.set(tenant0, "dev", "sse_enabled", "true", false)
			was, told, logged := r.rows(), len(r.told), r.log.Len()
			c := r.as(tt.tenant, "dev", tt.role)
			flag, err := r.s.Set(c, tt.flag, tt.request)
			wantError(t, err, tt.code, tt.field)
			if flag.Name != "" {
				t.Errorf("the answer says %+v", flag)
			}
			if tt.code == twinrail.CodeNotFound {
				_, err := r.s.Unset(c, tt.flag)
				wantError(t, err, tt.code, tt.field)
			}
			if tt.role != twinrail.Owner {
				list, err := r.s.List(c)
				wantError(t, err, twinrail.CodeNotFound, "")
				if list != nil {
					t.Errorf("the list says %v", list)
				}
			}
			wantFlags(t, r.s.Flags("t_acme", "dev"), builtIn)
			if now := r.rows(); !slices.Equal(now, was) {
				t.Errorf("the table has %q, and had %q", now, was)
			}
			if len(r.told) != told || r.log.Len() != logged {
				t.Errorf("told of %v, logged %s", r.told[told:], r.log.String()[logged:])
			}
		})
	}
}

// No tenant sees or changes what is another's, in its own env or elsewhere; only
// Tenant-0 changes more than its own, and that in its env.
func TestIsolation(t *testing.T) {
	r := newRig(t)
	r.set("t_other", "dev", "gesture_rate", "77")
	r.set("t_acme", "prod", "gesture_rate", "88")
	see := func() (all [][]string) {
		for _, at := range [][2]string{{tenant0, "dev"}, {"t_acme", "prod"}, {"t_other", "dev"}, {"t_other", "prod"}} {
			all = append(all, r.list(at[0], at[1]))
		}
		return all
	}
	was := see()
	for i, name := range names {
		if got := r.flag("t_acme", "dev", name); got != initial[i]+" default" {
			t.Errorf("%s is %s", name, got)
		}
	}
	for i, name := range names {
		value := map[string]string{"true": "false", "false": "true", "30": "5"}[initial[i]]
		r.set("t_acme", "dev", name, value)
		if got := r.flag("t_acme", "dev", name); got != value+" tenant" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if now := see(); !slices.EqualFunc(now, was, slices.Equal) {
		t.Errorf("the others have %q, and had %q", now, was)
	}
	for _, name := range names {
		r.unset("t_acme", "dev", name)
	}
	if now := see(); !slices.EqualFunc(now, was, slices.Equal) {
		t.Errorf("once it is unset, the others have %q, and had %q", now, was)
	}

	r.set(tenant0, "dev", "gesture_rate", "9", false)
	for _, tt := range [][3]string{
		{"t_acme", "dev", "9 tenant0 locked"}, {"t_other", "dev", "9 tenant0 locked overruled:77"},
		{"t_acme", "prod", "88 tenant"}, {"t_other", "prod", "30 default"},
	} {
		if got := r.flag(tt[0], tt[1], "gesture_rate"); got != tt[2] {
			t.Errorf("%s in %s has %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}
