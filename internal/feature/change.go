package feature

import (
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/table"
)

var errNotFound = &twinrail.Error{Code: twinrail.CodeNotFound}

// administers returns where c's actor may see and change settings: those of its
// own tenant and env, or the platform's for its env where the tenant is Tenant-0.
// Anyone but an owner or admin may nowhere, which is not_found; see
// [auth.Context.Administers].
func (s *Store) administers(c *auth.Context) (scope, error) {
	if !c.Administers() {
		return scope{}, errNotFound
	}
	id := c.Principal().Identity()
	return s.scope(id.TenantID, id.Env), nil
}

// named is administers, and the flag of that name.
func (s *Store) named(c *auth.Context, name string) (scope, *flag, error) {
	at, err := s.administers(c)
	if err != nil {
		return scope{}, nil, err
	}
	f := find(name)
	if f == nil {
		return scope{}, nil, errNotFound
	}
	return at, f, nil
}

// List returns all flags as they are for c's tenant and env. For anyone but an
// owner or admin it has code not_found.
func (s *Store) List(c *auth.Context) ([]twinrail.Flag, error) {
	at, err := s.administers(c)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]twinrail.Flag, 0, len(flagTable))
	for i := range flagTable {
		f := &flagTable[i]
		list = append(list, f.describe(s.resolve(at, f)))
	}
	return list, nil
}

func (f *flag) describe(r resolved) twinrail.Flag {
	d := twinrail.Flag{
		Name: f.name, Value: f.format(r.value), Source: r.source,
		Overridable: r.overridable, Default: f.format(f.builtIn),
	}
	if r.overruled {
		d.Overruled = f.format(r.own)
	}
	return d
}

// Set sets a flag for c's tenant and env, or, where the tenant is Tenant-0, for
// all tenants in the env, and returns what it is there now. On return the setting
// is durable and [Store.Flags] returns it.
//
// It has code not_found for anyone but an owner or admin, and where there is no
// such flag. It has bad_request with field "value", where that is not one of the
// flag's; with "overridable", where that is given by another tenant than Tenant-0;
// and with "name", where Tenant-0 does not let tenants override the flag. It has
// unavailable where the setting could not be stored, which then has no effect,
// but may have one after the next start.
func (s *Store) Set(c *auth.Context, name string, r twinrail.FlagRequest) (twinrail.Flag, error) {
	at, f, err := s.named(c, name)
	if err != nil {
		return twinrail.Flag{}, err
	}
	value, err := f.parse(r.Value)
	if err != nil {
		return twinrail.Flag{}, err
	}
	if r.Overridable != nil && at.tenant != platform {
		return twinrail.Flag{}, twinrail.Errorf(twinrail.CodeBadRequest, "overridable", "is the platform's to say")
	}
	return s.change(c, key{at, f.name}, f, func(now resolved) (*setting, error) {
		next := &setting{value: value}
		switch {
		case at.tenant != platform && !now.overridable:
			return nil, twinrail.Errorf(twinrail.CodeBadRequest, "name", "the platform does not let tenants override %s", f.name)
		case r.Overridable != nil:
			next.overridable = *r.Overridable
		case at.tenant == platform:
			next.overridable = now.overridable
		}
		return next, nil
	})
}

// Unset removes the setting of a flag for c's tenant and env, or Tenant-0's for
// the env, where there is one, and returns what the flag is there now. A tenant
// may do so too where its setting has no effect. Its errors are those of
// [Store.Set] but for bad_request.
func (s *Store) Unset(c *auth.Context, name string) (twinrail.Flag, error) {
	at, f, err := s.named(c, name)
	if err != nil {
		return twinrail.Flag{}, err
	}
	return s.change(c, key{at, f.name}, f, func(resolved) (*setting, error) { return nil, nil })
}

// change makes what decide returns the setting k; nil removes it. Decide gets
// what the flag is before.
func (s *Store) change(c *auth.Context, k key, f *flag, decide func(now resolved) (*setting, error)) (twinrail.Flag, error) {
	before, after, err := s.inTurn(c, k, f, decide)
	if err != nil {
		return twinrail.Flag{}, err
	}
	differs := before.value != after.value || before.overridable != after.overridable
	if differs && s.onChange != nil {
		s.onChange(k.tenant, k.env)
	}
	return f.describe(after), nil
}

// inTurn has the part of change in which nobody else may change what is set in
// the same scope, so that memory, table and log have the changes in one order.
func (s *Store) inTurn(c *auth.Context, k key, f *flag, decide func(now resolved) (*setting, error)) (before, after resolved, err error) {
	t := s.begin(k.scope)
	defer s.end(k.scope, t)
	s.mu.RLock()
	before = s.resolve(k.scope, f)
	was, set := s.settings[k]
	s.mu.RUnlock()
	next, err := decide(before)
	if err != nil {
		return before, after, err
	}
	if err := s.store(c, k, f, next); err != nil {
		s.log.Error("the setting of a flag cannot be stored", "flag", f.name, "tenant", c.Routing().TenantID, "env", k.env,
			"error", err, "request_id", c.RequestID())
		return before, after, twinrail.Errorf(twinrail.CodeUnavailable, "", "the flag cannot be stored")
	}
	before, after = s.put(k, f, next)
	from, to := "unset", "unset"
	if set {
		from = string(f.format(was.value))
	}
	if next != nil {
		to = string(f.format(next.value))
	}
	s.log.Info("flag changed", "flag", f.name, "tenant", c.Routing().TenantID, "env", k.env, "old", from, "new", to,
		"effective", string(f.format(after.value)), "overridable", after.overridable,
		"by", c.Principal().Identity().ActorID, "request_id", c.RequestID())
	return before, after, nil
}

// store makes next durable as the setting k.
func (s *Store) store(c *auth.Context, k key, f *flag, next *setting) error {
	if next == nil {
		return s.table.Delete(k.row(), table.Synced)
	}
	row := settingRow{
		Value: f.format(next.value), By: c.Principal().Identity().ActorID,
		At: time.Now().UTC(), RequestID: c.RequestID(),
	}
	if k.tenant == platform {
		row.Overridable = &next.overridable
	}
	value, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return s.table.Put(k.row(), value, table.Synced)
}

// turn is held by who changes what is set in one scope. There is one for each
// scope that is being changed: a tenant that makes many changes holds up no
// other one's.
type turn struct {
	sync.Mutex
	users int // guarded by the store's mu
}

func (s *Store) begin(at scope) *turn {
	s.mu.Lock()
	t := s.turns[at]
	if t == nil {
		t = new(turn)
		s.turns[at] = t
	}
	t.users++
	s.mu.Unlock()
	t.Lock()
	return t
}

func (s *Store) end(at scope, t *turn) {
	t.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(s.turns, at)
	}
}
