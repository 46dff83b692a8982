package feature_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/table"
)

var (
	tenants = []string{tenant0, "t_acme", "t_other"}
	envs    = []string{"dev", "prod"}
	names   = []string{"ws_enabled", "sse_enabled", "gesture_fanout", "gesture_rate", "replay"}
	initial = []string{"true", "true", "false", "30", "true"}
)

// model is what a store should be.
type model struct {
	r      *rig
	set    map[[3]string]string // tenant, env, name: value
	locked map[[2]string]bool   // env, name: as Tenant-0 has said
	told   []string
}

// value returns what the flag is, as [line] has it.
func (m *model) value(tenant, env, name string) (value, rest string) {
	value, rest = initial[slices.Index(names, name)], " default"
	locked := ""
	if v, ok := m.set[[3]string{tenant0, env, name}]; ok {
		value, rest = v, " tenant0"
		if m.locked[[2]string{env, name}] {
			locked = " locked"
		}
	}
	own, ok := m.set[[3]string{tenant, env, name}]
	switch {
	case !ok || tenant == tenant0:
	case locked == "":
		value, rest = own, " tenant"
	default:
		locked += " overruled:" + own
	}
	return value, rest + locked
}

func (m *model) line(tenant, env, name string) string {
	value, rest := m.value(tenant, env, name)
	return name + "=" + value + rest
}

func (m *model) flags(tenant, env string) feature.Flags {
	var f feature.Flags
	v := make(map[string]string)
	for _, name := range names {
		v[name], _ = m.value(tenant, env, name)
	}
	f.WS, f.SSE, f.GestureFanout, f.Replay = v["ws_enabled"] == "true", v["sse_enabled"] == "true", v["gesture_fanout"] == "true", v["replay"] == "true"
	fmt.Sscan(v["gesture_rate"], &f.GestureRate)
	return f
}

// change has a flag set or unset, over a table that works or not.
func (m *model) change(t *rapid.T) {
	tenant, env := rapid.SampledFrom(tenants).Draw(t, "tenant"), rapid.SampledFrom(envs).Draw(t, "env")
	name := rapid.SampledFrom(names).Draw(t, "name")
	fails := rapid.IntRange(0, 9).Draw(t, "fails") == 0
	if fails {
		m.r.onWrite(func(string, table.Durability) error { return errors.New("broken") })
		defer m.r.onWrite(nil)
	}
	id, at := [3]string{tenant, env, name}, [2]string{env, name}
	_, platformSet := m.set[[3]string{tenant0, env, name}]
	locked := platformSet && m.locked[at]
	was := m.line(tenant, env, name)
	if rapid.IntRange(0, 2).Draw(t, "unset") == 0 {
		got, err := m.r.s.Unset(m.r.admin(tenant, env), name)
		if fails {
			wantError(t, err, twinrail.CodeUnavailable, "")
			return
		}
		delete(m.set, id)
		m.done(t, id, was, got, err)
		return
	}
	value := rapid.SampledFrom([]string{"true", "false"}).Draw(t, "value")
	if name == "gesture_rate" {
		value = rapid.SampledFrom([]string{"1", "30", "1000"}).Draw(t, "rate")
	}
	var overridable []bool
	if tenant == tenant0 && rapid.Bool().Draw(t, "says") {
		overridable = []bool{rapid.Bool().Draw(t, "overridable")}
	}
	got, err := m.r.s.Set(m.r.admin(tenant, env), name, request(value, overridable...))
	switch {
	case tenant != tenant0 && locked:
		wantError(t, err, twinrail.CodeBadRequest, "name")
		return
	case fails:
		wantError(t, err, twinrail.CodeUnavailable, "")
		return
	}
	m.set[id] = value
	if overridable != nil {
		m.locked[at] = !overridable[0]
	} else if tenant == tenant0 && !platformSet {
		m.locked[at] = false
	}
	m.done(t, id, was, got, err)
}

// done checks the answer, and notes whether it is to be told of.
func (m *model) done(t *rapid.T, id [3]string, was string, got twinrail.Flag, err error) {
	tenant, env, name := id[0], id[1], id[2]
	now := m.line(tenant, env, name)
	if err != nil || line(got) != now {
		t.Fatalf("%v: got %q (%v), want %q", id, line(got), err, now)
	}
	value := func(line string) (v string, locked bool) {
		var rest string
		fmt.Sscanf(line, name+"=%s %s %s", &v, new(string), &rest)
		return v, rest == "locked"
	}
	wasValue, wasLocked := value(was)
	nowValue, nowLocked := value(now)
	if wasValue == nowValue && wasLocked == nowLocked {
		return
	}
	if tenant == tenant0 {
		tenant = ""
	}
	m.told = append(m.told, tenant+"/"+env)
}

func (m *model) check(t *rapid.T) {
	held := 0
	for _, tenant := range tenants {
		for _, env := range envs {
			var want []string
			for _, name := range names {
				want = append(want, m.line(tenant, env, name))
			}
			if got := m.r.list(tenant, env); !slices.Equal(got, want) {
				t.Fatalf("%s in %s has %q, want %q", tenant, env, got, want)
			}
			flags := m.flags(tenant, env)
			wantFlags(t, m.r.s.Flags(tenant, env), flags)
			if flags != m.flags(tenant0, env) {
				held++
			}
		}
	}
	if tenants, turns := m.r.s.Held(); tenants != held || turns != 0 {
		t.Fatalf("%d tenants and %d turns are held, want %d and none", tenants, turns, held)
	}
	if rows := len(m.r.rows()); rows != len(m.set) {
		t.Fatalf("the table has %d rows, want %d", rows, len(m.set))
	}
	if !slices.Equal(m.r.told, m.told) {
		t.Fatalf("told of %q, want %q", m.r.told, m.told)
	}
}

// A store does what its model does.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{newRig(t), make(map[[3]string]string), make(map[[2]string]bool), nil}
		t.Repeat(map[string]func(*rapid.T){
			"change":  m.change,
			"more":    m.change,
			"restart": func(*rapid.T) { m.r.open(tenant0) },
			"":        m.check,
		})
	})
}
