package feature_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/table"
)

// tester is what both a test and a run of a property are.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

const tenant0 = "t_0"

var builtIn = feature.Flags{WS: true, SSE: true, GestureRate: 30, Replay: true}

// rig is a store over a table that outlives it.
type rig struct {
	t      tester
	issuer *authtest.Issuer
	s      *feature.Store
	log    bytes.Buffer

	memory table.Memory
	mu     sync.Mutex
	actors map[[3]string]*auth.Context
	told   []string                                   // tenant/env of each call of the hook
	write  func(key string, d table.Durability) error // before each, where set
}

func newRig(t tester) *rig {
	r := &rig{t: t, issuer: authtest.New(t), actors: make(map[[3]string]*auth.Context)}
	r.open(tenant0)
	return r
}

func (r *rig) open(tenant0 string) {
	r.t.Helper()
	s, err := feature.Open(r, feature.Options{Tenant0: tenant0, Logger: slog.New(slog.NewJSONHandler(&r.log, nil))})
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	s.OnChange(func(tenant, env string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, tenant+"/"+env)
	})
	r.s = s
}

func (r *rig) onWrite(fn func(key string, d table.Durability) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write = fn
}

func (r *rig) before(key string, d table.Durability) error {
	r.mu.Lock()
	write := r.write
	r.mu.Unlock()
	if write == nil {
		return nil
	}
	return write(key, d)
}

// Put is that of a table that may fail, or take its time.
func (r *rig) Put(key string, value []byte, d table.Durability) error {
	if err := r.before(key, d); err != nil {
		return err
	}
	return r.memory.Put(key, value, d)
}

// Delete is like Put.
func (r *rig) Delete(key string, d table.Durability) error {
	if err := r.before(key, d); err != nil {
		return err
	}
	return r.memory.Delete(key, d)
}

func (r *rig) Scan(fn func(string, []byte) error) error { return r.memory.Scan(fn) }

// rows returns the table's rows: key, space, value.
func (r *rig) rows() []string {
	rows := []string{}
	err := r.memory.Scan(func(key string, value []byte) error {
		rows = append(rows, key+" "+string(value))
		return nil
	})
	if err != nil {
		r.t.Fatalf("scan: %v", err)
	}
	return rows
}

// as returns the context of an actor in the tenant and env.
func (r *rig) as(tenant, env string, role twinrail.Role) *auth.Context {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	who := [3]string{tenant, env, string(role)}
	if c := r.actors[who]; c != nil {
		return c
	}
	p := r.issuer.Principal(authtest.Tenant(tenant), authtest.Env(env), authtest.Actor("u_7"), authtest.Role(role))
	c, err := p.Enter(twinrail.Routing{TenantID: tenant, Env: env}, "req-7", "")
	if err != nil {
		r.t.Fatalf("enter: %v", err)
	}
	r.actors[who] = c
	return c
}

func (r *rig) admin(tenant, env string) *auth.Context { return r.as(tenant, env, twinrail.Admin) }

// request is a value, and where two are given what overridable is to be.
func request(value string, overridable ...bool) twinrail.FlagRequest {
	q := twinrail.FlagRequest{Value: json.RawMessage(value)}
	if len(overridable) > 0 {
		q.Overridable = &overridable[0]
	}
	return q
}

func (r *rig) set(tenant, env, name, value string, overridable ...bool) twinrail.Flag {
	r.t.Helper()
	f, err := r.s.Set(r.admin(tenant, env), name, request(value, overridable...))
	if err != nil {
		r.t.Fatalf("%s sets %s in %s to %s: %v", tenant, name, env, value, err)
	}
	return f
}

func (r *rig) unset(tenant, env, name string) twinrail.Flag {
	r.t.Helper()
	f, err := r.s.Unset(r.admin(tenant, env), name)
	if err != nil {
		r.t.Fatalf("%s unsets %s in %s: %v", tenant, name, env, err)
	}
	return f
}

// list returns what the tenant's admin gets to see in env, one line a flag.
func (r *rig) list(tenant, env string) []string {
	r.t.Helper()
	flags, err := r.s.List(r.admin(tenant, env))
	if err != nil {
		r.t.Fatalf("list of %s in %s: %v", tenant, env, err)
	}
	var lines []string
	for _, f := range flags {
		lines = append(lines, line(f))
	}
	return lines
}

// line returns name=value, the source, and then what is unusual.
func line(f twinrail.Flag) string {
	s := f.Name + "=" + string(f.Value) + " " + string(f.Source)
	if !f.Overridable {
		s += " locked"
	}
	if f.Overruled != nil {
		s += " overruled:" + string(f.Overruled)
	}
	return s
}

// flag returns the line of one flag.
func (r *rig) flag(tenant, env, name string) string {
	r.t.Helper()
	lines := r.list(tenant, env)
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+"=") })
	if i < 0 {
		r.t.Fatalf("there is no %s in %q", name, lines)
	}
	return strings.TrimPrefix(lines[i], name+"=")
}

// wantError fails unless err is of the code and in the field.
func wantError(t tester, err error, code twinrail.Code, field string) {
	t.Helper()
	var e *twinrail.Error
	if !errors.As(err, &e) || e.Code != code || e.Field != field {
		t.Errorf("got %v, want %s in field %q", err, code, field)
	}
}

func wantFlags(t tester, got, want feature.Flags) {
	t.Helper()
	if got != want {
		t.Errorf("the flags are %+v, want %+v", got, want)
	}
}
