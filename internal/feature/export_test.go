package feature

// Held returns how many tenants, counted once in each env, and turns s has in
// memory beside what is set.
func (s *Store) Held() (tenants, turns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.current.Load().envs {
		tenants += len(e.own)
	}
	return tenants, len(s.turns)
}

// Current returns what Flags is of the snapshot that there is now, for ever.
func (s *Store) Current() func(tenant, env string) Flags { return s.current.Load().flags }

// Lock has the store locked, as it is by who changes something, until unlock.
func (s *Store) Lock() (unlock func()) {
	s.mu.Lock()
	return s.mu.Unlock
}
