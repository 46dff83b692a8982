// Package feature has the Tenant-0 flags: what the platform lets tenants do, and
// what they have chosen.
//
// A flag is resolved for a tenant and env: the tenant's own setting, where the
// platform lets tenants override the flag; else the setting that the platform's
// own tenant, Tenant-0, has made for the env; else what is built in. As long as
// Tenant-0 has set nothing for a flag and env, tenants may override it: what a
// flag does, it does to the tenant itself, and what tenants cost each other is
// for limits to hold, whatever the flags say.
//
// Settings are in a table, and all of them in memory. What they come to is in a
// snapshot, which is one atomic load away for whoever reads flags, and which every
// change replaces.
package feature

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// Options is what a [Store] is made of, but for its table. The zero value of a
// field means its default.
type Options struct {
	// Tenant0 is the platform's own tenant. Default t_0. Its settings are the
	// platform's, and stay so when another tenant takes its place; the settings
	// that one had made as a tenant have no effect then.
	Tenant0 string
	// Logger takes every change. Default discards.
	Logger *slog.Logger
}

// Store has the settings of all tenants. Its methods may be called concurrently.
type Store struct {
	table    table.Table
	tenant0  string
	log      *slog.Logger
	onChange func(tenant, env string)

	current atomic.Pointer[snapshot]

	mu       sync.RWMutex // never held while the table is written
	settings map[key]setting
	turns    map[scope]*turn
}

// platform stands in the place of the tenant in what is Tenant-0's. It is no
// tenant's id.
const platform = ""

// scope is where a setting is made: in a tenant, or by the platform, and an env.
type scope struct{ tenant, env string }

// setting is the value of a flag that was set.
type setting struct {
	value       int
	overridable bool // of the platform's alone
}

// Open returns a store of the settings in t, which nobody else may change. A row
// that cannot be read is an error, as without it a rail might be on that was
// switched off; one of a flag that this version does not know is left alone.
func Open(t table.Table, o Options) (*Store, error) {
	s := &Store{
		table: t, tenant0: cmp.Or(o.Tenant0, "t_0"), log: o.Logger,
		settings: make(map[key]setting), turns: make(map[scope]*turn),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if t == nil {
		return nil, errors.New("feature: a store needs a table")
	}
	if !twinrail.ValidKeyValue(twinrail.KeyTenant, s.tenant0) {
		return nil, fmt.Errorf("feature: Tenant-0 cannot be %q: that is no tenant_id", s.tenant0)
	}
	err := t.Scan(func(rowKey string, value []byte) error {
		k, err := parseKey(rowKey)
		if err != nil {
			return err
		}
		f := find(k.flag)
		if f == nil {
			s.log.Warn("the setting of a flag that this version does not know is left alone", "flag", k.flag, "tenant", k.tenant, "env", k.env)
			return nil
		}
		s.settings[k], err = parseRow(k, f, value)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.publishFirst()
	return s, nil
}

// OnChange has fn called after each change of what flags are, by whoever made
// the change, once [Store.Flags] returns it, and with no lock held. The tenant is
// "" where all tenants of the env may be concerned. Of two changes at once, the
// calls may come in either order. It is to be called before the store is used,
// once.
//
// A connection that is to learn of every change first comes to where fn finds it,
// and then reads the flags that it starts with.
func (s *Store) OnChange(fn func(tenant, env string)) { s.onChange = fn }

// scope returns where what is the tenant's is set.
func (s *Store) scope(tenant, env string) scope {
	if tenant == s.tenant0 {
		return scope{platform, env}
	}
	return scope{tenant, env}
}

// resolved is what a flag is somewhere.
type resolved struct {
	value       int
	source      twinrail.FlagSource
	overridable bool
	overruled   bool // that there is an own setting, and it has no effect
	own         int  // which that is
}

// resolve needs s.mu.
func (s *Store) resolve(at scope, f *flag) resolved {
	r := resolved{value: f.builtIn, source: twinrail.FlagBuiltIn, overridable: true}
	if p, ok := s.settings[key{scope{platform, at.env}, f.name}]; ok {
		r.value, r.source, r.overridable = p.value, twinrail.FlagFromTenant0, p.overridable
	}
	if at.tenant == platform {
		return r
	}
	if own, ok := s.settings[key{at, f.name}]; ok && r.overridable {
		r.value, r.source = own.value, twinrail.FlagFromTenant
	} else if ok {
		r.overruled, r.own = true, own.value
	}
	return r
}

// flags returns what all flags are at the scope. It needs s.mu.
func (s *Store) flags(at scope) Flags {
	var flags Flags
	for i := range flagTable {
		f := &flagTable[i]
		f.put(&flags, s.resolve(at, f).value)
	}
	return flags
}

// put makes next the setting k, or removes it where next is nil, and publishes
// what the flags are then. It returns what the flag was and is at k's place.
func (s *Store) put(k key, f *flag, next *setting) (before, after resolved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.resolve(k.scope, f)
	if next != nil {
		s.settings[k] = *next
	} else {
		delete(s.settings, k)
	}
	s.publish(k.scope)
	return before, s.resolve(k.scope, f)
}
