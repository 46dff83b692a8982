package server

import "github.com/twinrail/twinrail/internal/auth"

// connections are those that are open. They are kept by tenant, so that what
// changes for one is not paid for by all.
type connections struct {
	of map[tenant]map[string]connection // by id
	n  int
}

func (cs *connections) add(c connection) {
	t := tenantOf(c.context())
	if cs.of == nil {
		cs.of = make(map[tenant]map[string]connection)
	}
	if cs.of[t] == nil {
		cs.of[t] = make(map[string]connection)
	}
	cs.of[t][c.name()] = c
	cs.n++
}

// remove reports whether c was there.
func (cs *connections) remove(c connection) bool {
	t := tenantOf(c.context()) // which no renewal changes
	if cs.of[t][c.name()] == nil {
		return false
	}
	if delete(cs.of[t], c.name()); len(cs.of[t]) == 0 {
		delete(cs.of, t)
	}
	cs.n--
	return true
}

// find returns the connection of that id in ac's tenant and env, or nil.
func (cs *connections) find(ac *auth.Context, id string) connection { return cs.of[tenantOf(ac)][id] }

// list returns the connections of those tenants that which says.
func (cs *connections) list(which func(tenant) bool) []connection {
	var all []connection
	for t := range cs.of {
		if which(t) {
			all = cs.appendOf(all, t)
		}
	}
	return all
}

func (cs *connections) appendOf(all []connection, t tenant) []connection {
	for _, c := range cs.of[t] {
		all = append(all, c)
	}
	return all
}
