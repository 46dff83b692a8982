package feature

import "maps"

// snapshot is what all flags are, everywhere, at one moment. Once it is published
// nobody changes it.
type snapshot struct {
	builtIn Flags // of an env that is not in envs
	envs    map[string]envFlags
}

// envFlags is what all flags are in one env.
type envFlags struct {
	all Flags            // of a tenant that is not in own
	own map[string]Flags // by tenant: what is not the same as all
}

// Flags returns what the flags of a tenant are in an env now: one atomic load, and
// two look-ups in what nobody changes.
func (s *Store) Flags(tenant, env string) Flags { return s.current.Load().flags(tenant, env) }

func (now *snapshot) flags(tenant, env string) Flags {
	e, ok := now.envs[env]
	if !ok {
		return now.builtIn
	}
	if own, ok := e.own[tenant]; ok {
		return own
	}
	return e.all
}

// publishFirst makes the snapshot that a store begins with.
func (s *Store) publishFirst() {
	// No setting has the env "".
	first := &snapshot{s.flags(scope{}), make(map[string]envFlags)}
	for k := range s.settings {
		s.enter(first, s.scope(k.tenant, k.env))
	}
	s.current.Store(first)
}

// publish makes the next snapshot, once what is set at the scope is another. For a
// tenant it copies what all have in the env, for the platform it resolves that
// again. Where a hundred thousand tenants have settings, this takes 10 ms and 0.3 s:
// other changes wait for it, and readers do not. It needs s.mu.
func (s *Store) publish(at scope) {
	now := s.current.Load()
	next := &snapshot{now.builtIn, maps.Clone(now.envs)}
	if at.tenant == platform {
		delete(next.envs, at.env)
		for k := range s.settings {
			if k.env == at.env {
				s.enter(next, s.scope(k.tenant, k.env))
			}
		}
	} else {
		if e, ok := next.envs[at.env]; ok {
			e.own = maps.Clone(e.own)
			next.envs[at.env] = e
		}
		s.enter(next, at)
	}
	s.current.Store(next)
}

// enter resolves the flags of the scope into next, which nobody else has, nor the
// own of that env. Where the platform's flags there are other ones now, next must
// not have the env before. It needs s.mu.
func (s *Store) enter(next *snapshot, at scope) {
	e, ok := next.envs[at.env]
	if !ok {
		e = envFlags{s.flags(scope{platform, at.env}), make(map[string]Flags)}
	}
	if flags := s.flags(at); flags != e.all {
		e.own[at.tenant] = flags
	} else {
		delete(e.own, at.tenant)
	}
	next.envs[at.env] = e
}
