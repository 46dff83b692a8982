package feature_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/table"
)

const by = `"by":"u_7","at":"2000-01-01T00:00:00Z","request_id":"req-7"}`

// What is stored is one row a setting, which says who made it, and a store that
// is opened over it has the same settings.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where it is the beginning of 2000
		r := newRig(t)
		r.set(tenant0, "dev", "gesture_rate", "60", false)
		r.set(tenant0, "dev", "gesture_fanout", "true")
		r.set("t_acme", "dev", "gesture_fanout", "false")
		r.set("t_acme", "dev", "replay", "true")
		r.unset("t_acme", "dev", "replay")
		r.set("t_acme", "prod", "gesture_rate", "7")
		want := []string{
			`/dev/gesture_fanout {"value":true,"overridable":true,` + by,
			`/dev/gesture_rate {"value":60,"overridable":false,` + by,
			`t_acme/dev/gesture_fanout {"value":false,` + by,
			`t_acme/prod/gesture_rate {"value":7,` + by,
		}
		if got := r.rows(); !slices.Equal(got, want) {
			t.Errorf("stored is %s, want %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		dev, prod, other := r.list("t_acme", "dev"), r.list("t_acme", "prod"), r.list("t_other", "dev")
		r.open(tenant0)
		for _, tt := range []struct {
			tenant, env string
			want        []string
		}{{"t_acme", "dev", dev}, {"t_acme", "prod", prod}, {"t_other", "dev", other}} {
			if got := r.list(tt.tenant, tt.env); !slices.Equal(got, tt.want) {
				t.Errorf("%s in %s has %q, and had %q", tt.tenant, tt.env, got, tt.want)
			}
		}
		wantFlags(t, r.s.Flags("t_other", "dev"), feature.Flags{WS: true, SSE: true, GestureFanout: true, GestureRate: 60, Replay: true})
	})
}

// What Tenant-0 has set is the platform's: when another tenant becomes Tenant-0,
// what that one has set for itself is not for all.
func TestAnotherTenant0(t *testing.T) {
	r := newRig(t)
	r.set(tenant0, "dev", "gesture_rate", "60")
	r.set("t_acme", "dev", "ws_enabled", "false")
	r.open("t_acme")
	for tenant, want := range map[string]string{"t_acme": "true default", "t_other": "true default", tenant0: "true default"} {
		if got := r.flag(tenant, "dev", "ws_enabled"); got != want {
			t.Errorf("ws_enabled of %s is %q, want %q", tenant, got, want)
		}
		if f := r.s.Flags(tenant, "dev"); !f.WS {
			t.Errorf("the WS rail of %s is off", tenant)
		}
	}
	r.set("t_acme", "dev", "gesture_rate", "61")
	r.set(tenant0, "dev", "gesture_rate", "1")
	if f := r.s.Flags("t_acme", "dev"); !f.WS || f.GestureRate != 61 {
		t.Errorf("the flags of t_acme are %+v", f)
	}
	if got := r.flag("t_other", "dev", "gesture_rate"); got != "61 tenant0" {
		t.Errorf("gesture_rate is %q", got)
	}
	r.open("") // the default, t_0
	r.set(tenant0, "dev", "gesture_rate", "62")
	if got := r.flag("t_other", "dev", "gesture_rate"); got != "62 tenant0" {
		t.Errorf("gesture_rate is %q", got)
	}
	if got := r.flag("t_acme", "dev", "ws_enabled"); got != "false tenant" {
		t.Errorf("ws_enabled is %q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	r := newRig(t)
	if _, err := feature.Open(r, feature.Options{Tenant0: "acme"}); err == nil {
		t.Error("Tenant-0 is acme")
	}
	if _, err := feature.Open(nil, feature.Options{}); err == nil {
		t.Error("opened without a table")
	}
	for name, row := range map[string][2]string{
		"a valid one":              {"t_acme/dev/replay", `{"value":true,` + by},
		"a valid default":          {"/dev/replay", `{"value":true,"overridable":false,` + by},
		"of a flag to come":        {"t_acme/dev/frames", `{"value":"many","until":"then"}`},
		"no tenant_id":             {"acme/dev/replay", `{"value":true,` + by},
		"no env":                   {"t_acme//replay", `{"value":true,` + by},
		"no flag":                  {"t_acme/dev/", `{"value":true,` + by},
		"a part too few":           {"dev/replay", `{"value":true,` + by},
		"a part too many":          {"t_acme/dev/replay/1", `{"value":true,` + by},
		"another form":             {"t_acme/dev/repl%61y", `{"value":true,` + by},
		"no JSON":                  {"t_acme/dev/replay", `true`},
		"no value":                 {"t_acme/dev/replay", `{` + by},
		"a value of another":       {"t_acme/dev/replay", `{"value":1,` + by},
		"a value out of bounds":    {"t_acme/dev/gesture_rate", `{"value":1001,` + by},
		"no time":                  {"t_acme/dev/replay", `{"value":true,"by":"u_7","request_id":"r"}`},
		"an unknown member":        {"t_acme/dev/replay", `{"value":true,"until":"then",` + by},
		"a member twice":           {"t_acme/dev/replay", `{"value":true,"value":false,` + by},
		"overridable, of a tenant": {"t_acme/dev/replay", `{"value":true,"overridable":true,` + by},
		"a default without it":     {"/dev/replay", `{"value":true,` + by},
	} {
		m := new(table.Memory)
		if err := m.Put(row[0], []byte(row[1]), table.Synced); err != nil {
			t.Fatal(err)
		}
		_, err := feature.Open(m, feature.Options{})
		if fine := name == "a valid one" || name == "a valid default" || name == "of a flag to come"; fine != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A change is durable before anyone sees it.
func TestDurable(t *testing.T) {
	r := newRig(t)
	for _, change := range []func(){
		func() { r.set("t_acme", "dev", "gesture_rate", "60") },
		func() { r.unset("t_acme", "dev", "gesture_rate") },
		func() { r.set(tenant0, "dev", "gesture_rate", "61") },
		func() { r.unset(tenant0, "dev", "gesture_rate") },
	} {
		was, told, writes := r.s.Flags("t_acme", "dev"), len(r.told), 0
		r.onWrite(func(key string, d table.Durability) error {
			if d != table.Synced {
				t.Errorf("%s is written lazily", key)
			}
			wantFlags(t, r.s.Flags("t_acme", "dev"), was)
			if len(r.told) != told {
				t.Errorf("told of it before it was written")
			}
			writes++
			return nil
		})
		change()
		if now := r.s.Flags("t_acme", "dev"); now == was || writes != 1 || len(r.told) != told+1 {
			t.Errorf("after %d writes and %d calls, the flags are %+v", writes, len(r.told)-told, now)
		}
	}
}

// A change that cannot be stored is none.
func TestTableFails(t *testing.T) {
	r := newRig(t)
	r.set("t_acme", "dev", "gesture_rate", "60")
	want, list, told := r.s.Flags("t_acme", "dev"), r.list("t_acme", "dev"), len(r.told)
	r.log.Reset()
	r.onWrite(func(string, table.Durability) error { return errors.New("the disk is full") })
	for _, tenant := range []string{"t_acme", tenant0} {
		_, err := r.s.Set(r.admin(tenant, "dev"), "gesture_rate", request("61"))
		wantError(t, err, twinrail.CodeUnavailable, "")
		if strings.Contains(err.Error(), "disk") {
			t.Errorf("the client is told %q", err)
		}
		_, err = r.s.Unset(r.admin(tenant, "dev"), "gesture_rate")
		wantError(t, err, twinrail.CodeUnavailable, "")
	}
	wantFlags(t, r.s.Flags("t_acme", "dev"), want)
	if now := r.list("t_acme", "dev"); !slices.Equal(now, list) || len(r.told) != told {
		t.Errorf("now there is %q, and was %q; told of %q", now, list, r.told[told:])
	}
	if logged := r.log.String(); strings.Count(logged, "the disk is full") != 4 || strings.Count(logged, `"request_id":"req-7"`) != 4 || strings.Contains(logged, "flag changed") {
		t.Errorf("logged is %s", logged)
	}
	r.onWrite(nil)
	r.set("t_acme", "dev", "gesture_rate", "62")
	want.GestureRate = 62
	wantFlags(t, r.s.Flags("t_acme", "dev"), want)
}

// Each change is logged: by whom, where, from what to what.
func TestLog(t *testing.T) {
	r := newRig(t)
	type record map[string]any
	want := func(change func(), fields record) {
		t.Helper()
		r.log.Reset()
		change()
		var got record
		if err := json.Unmarshal(r.log.Bytes(), &got); err != nil { // of exactly one line
			t.Fatalf("%v: %s", err, r.log.String())
		}
		delete(got, "time")
		fields["level"], fields["msg"], fields["by"], fields["request_id"], fields["env"] = "INFO", "flag changed", "u_7", "req-7", "dev"
		if !reflect.DeepEqual(got, fields) {
			t.Errorf("logged is\n%v, want\n%v", got, fields)
		}
	}
	want(func() { r.set("t_acme", "dev", "gesture_rate", "60") },
		record{"tenant": "t_acme", "flag": "gesture_rate", "old": "unset", "new": "60", "effective": "60", "overridable": true})
	want(func() { r.set("t_acme", "dev", "gesture_rate", "61") },
		record{"tenant": "t_acme", "flag": "gesture_rate", "old": "60", "new": "61", "effective": "61", "overridable": true})
	want(func() { r.set(tenant0, "dev", "gesture_rate", "5", false) },
		record{"tenant": tenant0, "flag": "gesture_rate", "old": "unset", "new": "5", "effective": "5", "overridable": false})
	want(func() { r.unset("t_acme", "dev", "gesture_rate") },
		record{"tenant": "t_acme", "flag": "gesture_rate", "old": "61", "new": "unset", "effective": "5", "overridable": false})
	want(func() { r.unset(tenant0, "dev", "gesture_rate") },
		record{"tenant": tenant0, "flag": "gesture_rate", "old": "5", "new": "unset", "effective": "30", "overridable": true})
}

// The hook is called when flags have changed, and only then, once they are
// what readers get, and may use the store.
func TestHook(t *testing.T) {
	r := newRig(t)
	type call struct {
		tenant, env string
		rate        int
	}
	var calls []call
	r.s.OnChange(func(tenant, env string) {
		now := r.s.Flags("t_acme", "dev").GestureRate
		calls = append(calls, call{tenant, env, now})
		if tenant == "t_acme" && now == 2 {
			r.set("t_acme", "dev", "gesture_rate", "3")
		}
		if _, turns := r.s.Held(); turns != 0 {
			t.Errorf("%d turns are held", turns)
		}
	})
	rate := func(tenant, env, value string, overridable ...bool) {
		r.set(tenant, env, "gesture_rate", value, overridable...)
	}
	rate("t_acme", "dev", "2")
	rate("t_acme", "dev", "3")               // as it is
	rate("t_acme", "prod", "30")             // as it is
	rate("t_other", "dev", "4")              // of another
	rate(tenant0, "dev", "30")               // as it is
	rate(tenant0, "dev", "30", false)        // which takes the override away
	r.unset("t_acme", "dev", "gesture_rate") // which had no effect
	rate(tenant0, "prod", "6")
	want := []call{{"t_acme", "dev", 2}, {"t_acme", "dev", 3}, {"t_other", "dev", 3}, {"", "dev", 30}, {"", "prod", 30}}
	if !slices.Equal(calls, want) {
		t.Errorf("the calls are %v, want %v", calls, want)
	}
}

// Many tenants that come and go, and change their flags, leave nothing in memory
// but what they have set, whether that or the platform's setting ends first.
func TestMemoryIsBounded(t *testing.T) {
	r := newRig(t)
	for i := range 200 {
		tenant := fmt.Sprintf("t_%d", i+1)
		r.set(tenant, "dev", "replay", "false")
		r.set(tenant, "prod", "replay", "false")
		r.set(tenant0, "prod", "replay", "false")
		r.unset(tenant, "dev", "replay")
		unset := []string{tenant, tenant0}
		r.unset(unset[i%2], "prod", "replay")
		r.unset(unset[1-i%2], "prod", "replay")
		r.s.Flags(tenant, "prod")
	}
	if tenants, turns := r.s.Held(); tenants != 0 || turns != 0 || len(r.rows()) != 0 {
		t.Errorf("%d tenants, %d turns and %d rows are held", tenants, turns, len(r.rows()))
	}
}

// A tenant whose changes take long holds up none of another tenant, nor anyone
// who reads.
func TestSlowTenant(t *testing.T) {
	r := newRig(t)
	entered, release := make(chan struct{}), make(chan struct{})
	r.onWrite(func(key string, _ table.Durability) error {
		if strings.HasPrefix(key, "t_acme/dev/") {
			entered <- struct{}{}
			<-release
		}
		return nil
	})
	c := r.admin("t_acme", "dev")
	var slow sync.WaitGroup
	for _, name := range []string{"replay", "ws_enabled"} {
		slow.Go(func() {
			if _, err := r.s.Set(c, name, request("true")); err != nil {
				t.Errorf("set: %v", err)
			}
		})
	}
	<-entered
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.set("t_other", "dev", "replay", "false")
		r.set("t_acme", "prod", "replay", "false")
		r.set(tenant0, "dev", "gesture_rate", "5")
		r.list("t_acme", "dev")
		if f := r.s.Flags("t_acme", "dev"); f.GestureRate != 5 {
			t.Errorf("the flags are %+v", f)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("another tenant's changes wait")
	}
	close(release)
	<-entered
	slow.Wait()
	<-done
}

// Of the changes in one scope, one is written at a time, so that what is in
// memory after many of them is what is in the table.
func TestChangesAtOnce(t *testing.T) {
	r := newRig(t)
	var writing sync.Map
	r.onWrite(func(key string, _ table.Durability) error {
		if _, another := writing.LoadOrStore(key, true); another {
			t.Errorf("%s is written twice at once", key)
		}
		for range 10 {
			runtime.Gosched()
		}
		writing.Delete(key)
		return nil
	})
	var changes sync.WaitGroup
	for i := range 8 {
		tenant := tenants[i%2] // Tenant-0 and t_acme
		c := r.admin(tenant, "dev")
		changes.Go(func() {
			for n := range 100 {
				var err error
				if n%3 == 2 {
					_, err = r.s.Unset(c, "gesture_rate")
				} else {
					_, err = r.s.Set(c, "gesture_rate", request(fmt.Sprint(100*i+n+1)))
				}
				if err != nil {
					t.Errorf("change: %v", err)
				}
			}
		})
	}
	changes.Wait()
	was, flags := r.list("t_acme", "dev"), r.s.Flags("t_acme", "dev")
	r.open(tenant0)
	if now := r.list("t_acme", "dev"); !slices.Equal(now, was) {
		t.Errorf("after a restart there is %q, and was %q", now, was)
	}
	wantFlags(t, flags, r.s.Flags("t_acme", "dev"))
}
