package auth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// maxLogins bounds the cookie sessions of an actor.
const maxLogins = 32

// login is a cookie session, and those that gave way to it.
type login struct {
	ended atomic.Bool // before its time
}

// loginEntry is what a cookie stands for.
type loginEntry struct {
	digest    digest
	principal *Principal
	opened    time.Time
}

// logins has the cookie sessions, in memory and in a table.
type logins struct {
	table table.Table

	mu       sync.RWMutex
	byCookie map[digest]*loginEntry
	byActor  map[actor][]*loginEntry // the oldest first
	ends     deadlines[digest]
}

// loginRow is the value of a session's row. Its key is the digest in hex.
type loginRow struct {
	ActorID   string             `json:"actor_id"`
	ActorType twinrail.ActorType `json:"actor_type"`
	TenantID  string             `json:"tenant_id"`
	Env       string             `json:"env"`
	Role      twinrail.Role      `json:"role"`
	TokenID   string             `json:"jti,omitzero"`
	Grants    []twinrail.Grant   `json:"grants"`
	IssuedAt  time.Time          `json:"issued_at,omitzero"`
	OpenedAt  time.Time          `json:"opened_at"`
	ExpiresAt time.Time          `json:"expires_at"`
	Scope     *scopeRow          `json:"scope,omitzero"`
}

type scopeRow struct {
	Rail     twinrail.Rail      `json:"rail,omitzero"`
	Routing  twinrail.Routing   `json:"routing"`
	Channels []twinrail.Channel `json:"channels,omitzero"`
}

func (e *loginEntry) key() string { return hex.EncodeToString(e.digest[:]) }

func (e *loginEntry) value() ([]byte, error) {
	id := &e.principal.identity
	row := loginRow{
		ActorID: id.ActorID, ActorType: id.ActorType, TenantID: id.TenantID, Env: id.Env, Role: id.Role,
		TokenID: id.TokenID, Grants: id.Grants, IssuedAt: id.IssuedAt, OpenedAt: e.opened, ExpiresAt: id.ExpiresAt,
	}
	if s := e.principal.scope; s != nil {
		row.Scope = &scopeRow{s.rail, s.routing, s.channels.Channels()}
	}
	return json.Marshal(row)
}

func parseLogin(key string, value []byte) (*loginEntry, error) {
	damaged := fmt.Errorf("auth: the stored session %.8s is damaged", key)
	e := &loginEntry{}
	if n, err := hex.Decode(e.digest[:], []byte(key)[:min(len(key), 2*len(e.digest))]); err != nil || n != len(e.digest) || e.key() != key {
		return nil, damaged
	}
	var row loginRow
	if err := json.Unmarshal(value, &row, json.RejectUnknownMembers(true)); err != nil {
		return nil, damaged
	}
	id := twinrail.Identity{
		ActorID: row.ActorID, ActorType: row.ActorType, TenantID: row.TenantID, Env: row.Env, Role: row.Role,
		TokenID: row.TokenID, Grants: row.Grants, IssuedAt: row.IssuedAt, ExpiresAt: row.ExpiresAt,
	}
	if badMember(id, nil) != "" {
		return nil, damaged
	}
	e.opened = row.OpenedAt
	e.principal = &Principal{identity: id, carriage: byCookie, login: new(login)}
	if s := row.Scope; s != nil {
		e.principal.scope = &scope{s.Rail, s.Routing, twinrail.ChannelsOf(s.Channels...)}
	}
	return e, nil
}

// endWithin has the session end no later than age after the iat of its
// credential, or where that has none, after its start: age may have been more
// then, and revocations are kept for no longer than they are now.
func (e *loginEntry) endWithin(age time.Duration) {
	id := &e.principal.identity
	start := id.IssuedAt
	if start.IsZero() {
		start = e.opened
	}
	if last := start.Add(age); id.ExpiresAt.After(last) {
		id.ExpiresAt = last
	}
}

// openLogins reads the table, and drops from it the sessions that are over or of
// none of the given envs.
func openLogins(t table.Table, envs []string, maxAge time.Duration, now time.Time) (*logins, error) {
	l := &logins{table: t, byCookie: make(map[digest]*loginEntry), byActor: make(map[actor][]*loginEntry)}
	var stored, dropped []*loginEntry
	err := t.Scan(func(key string, value []byte) error {
		e, err := parseLogin(key, value)
		stored = append(stored, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(x, y *loginEntry) int { return x.opened.Compare(y.opened) })
	for _, e := range stored {
		e.endWithin(maxAge)
		if now.Before(e.principal.ExpiresAt()) && slices.Contains(envs, e.principal.identity.Env) {
			dropped = append(dropped, l.add(e)...)
		} else {
			dropped = append(dropped, e)
		}
	}
	return l, l.forget(dropped, table.Lazy)
}

// find returns whom the cookie stands for.
func (l *logins) find(cookie string, now time.Time) (*Principal, error) {
	l.mu.RLock()
	e := l.byCookie[digestOf(cookie)]
	l.mu.RUnlock()
	if e == nil {
		return nil, invalid("the cookie's session has ended, or never was one")
	}
	if !now.Before(e.principal.ExpiresAt()) {
		return nil, errExpired
	}
	return e.principal, nil
}

// open makes a session for p whose cookie has the digest d, in place of that with
// the digest old if that is of the same actor. It reports whether another one
// was ended for it; that may be so also with an error.
func (l *logins) open(d, old digest, p *Principal, now time.Time) (ended bool, err error) {
	e := &loginEntry{digest: d, opened: now.UTC()}
	e.principal = &Principal{identity: p.identity, carriage: byCookie, scope: p.scope, login: new(login)}
	value, err := e.value()
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	over := l.sweep(now)
	l.mu.Unlock()
	if err := l.forget(over, table.Lazy); err != nil {
		return false, err
	}
	// Stored before it is in memory, where it can be ended: else its end could
	// be stored first.
	if err := l.table.Put(e.key(), value, table.Synced); err != nil {
		return false, err
	}

	l.mu.Lock()
	var replaced []*loginEntry
	if was := l.byCookie[old]; was != nil && was.principal.actor() == p.actor() {
		e.principal.login = was.principal.login
		l.remove(was)
		replaced = append(replaced, was)
	}
	evicted := l.add(e)
	l.mu.Unlock()

	for _, was := range evicted {
		was.principal.login.ended.Store(true)
	}
	return len(evicted) > 0, l.forget(append(replaced, evicted...), table.Synced)
}

// endByCookie ends the session of by whose cookie has the digest d, and reports
// whether there was one.
func (l *logins) endByCookie(d digest, by actor) (bool, error) {
	l.mu.RLock()
	e := l.byCookie[d]
	l.mu.RUnlock()
	if e == nil || e.principal.actor() != by {
		return false, nil
	}
	if err := l.table.Delete(e.key(), table.Synced); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byCookie[d] != e {
		return false, nil // it has given way, or been ended, meanwhile
	}
	e.principal.login.ended.Store(true) // with the lock: no other one takes it over
	l.remove(e)
	return true, nil
}

func (l *logins) forget(entries []*loginEntry, d table.Durability) error {
	var errs []error
	for _, e := range entries {
		errs = append(errs, l.table.Delete(e.key(), d))
	}
	return errors.Join(errs...)
}

// sweep removes sessions that are over, and returns them.
func (l *logins) sweep(now time.Time) []*loginEntry {
	var over []*loginEntry
	for range maxSweep {
		d, ok := l.ends.due(now)
		if !ok {
			break
		}
		e := l.byCookie[d]
		l.remove(e)
		over = append(over, e)
	}
	return over
}

// add adds e, the newest of its actor's sessions, and removes and returns the
// oldest where there are too many with it.
func (l *logins) add(e *loginEntry) (evicted []*loginEntry) {
	a := e.principal.actor()
	l.byCookie[e.digest] = e
	l.ends.set(e.digest, e.principal.ExpiresAt())
	l.byActor[a] = append(l.byActor[a], e)
	if all := l.byActor[a]; len(all) > maxLogins {
		evicted = slices.Clone(all[:len(all)-maxLogins])
	}
	for _, was := range evicted {
		l.remove(was)
	}
	return evicted
}

// remove removes e, where it is still there.
func (l *logins) remove(e *loginEntry) {
	if l.byCookie[e.digest] != e {
		return
	}
	a := e.principal.actor()
	delete(l.byCookie, e.digest)
	l.ends.remove(e.digest)
	l.byActor[a] = slices.DeleteFunc(l.byActor[a], func(x *loginEntry) bool { return x == e })
	if len(l.byActor[a]) == 0 {
		delete(l.byActor, a)
	}
}
