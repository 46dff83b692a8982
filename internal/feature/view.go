package feature

import "sync/atomic"

// View is the flags of one tenant and env, kept up to date. All who hold one at
// the same time share it.
type View struct {
	store *Store
	at    scope
	flags atomic.Pointer[Flags]
	users int // guarded by store.mu
}

// View returns the view of a tenant's flags in an env. The caller must release
// it, once. The store keeps a view in memory only until all have done so: it has
// one for each tenant and env that has connections, or whatever else holds views.
//
// A connection that is to learn of every change takes its view first, then
// comes to where the function of [Store.OnChange] finds it, and then loads the
// flags that it starts with.
func (s *Store) View(tenant, env string) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.scope(tenant, env)
	v := s.views[at]
	if v == nil {
		v = &View{store: s, at: at}
		v.refresh()
		s.views[at] = v
	}
	v.users++
	return v
}

// Load returns what the flags are. It is one atomic load: as long as nothing
// changes, the pointer is the same.
func (v *View) Load() *Flags { return v.flags.Load() }

// Release says that one who took v has no more use for it. Once all have said
// so, v is no longer kept up to date.
func (v *View) Release() {
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch v.users--; {
	case v.users == 0:
		delete(s.views, v.at)
	case v.users < 0:
		panic("feature: a view was released more often than taken")
	}
}

// refresh needs v.store.mu.
func (v *View) refresh() {
	flags := v.store.flags(v.at)
	if was := v.flags.Load(); was == nil || *was != flags {
		v.flags.Store(&flags)
	}
}

// Flags returns what the flags of a tenant are in an env now, for who needs them
// once, such as a request.
func (s *Store) Flags(tenant, env string) Flags {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := s.scope(tenant, env)
	if v := s.views[at]; v != nil {
		return *v.Load()
	}
	return s.flags(at)
}
