package auth

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// maxRevoked bounds the revocations by jti in one tenant and env, and those by
// actor: a request can name any, whether there is one or not.
const maxRevoked = 10_000

// maxClockSkew is how far ahead of ours the clock of an issuer may be.
const maxClockSkew = time.Minute

// The kinds of subject, as a request names them. They are part of what is stored.
const (
	subjectToken  = "jti"
	subjectActor  = "actor_id"
	subjectTenant = "tenant"
)

// subject is whose credentials a revocation is about, within a tenant and env.
type subject struct {
	tenant, env string
	kind        string
	id          string // the jti or the actor; "" for the tenant
}

// scope returns the tenant and env, and group the kind too, of which there are
// maxRevoked at most.
func (s subject) scope() subject { return subject{tenant: s.tenant, env: s.env} }
func (s subject) group() subject { return subject{tenant: s.tenant, env: s.env, kind: s.kind} }

// key returns s as the key of its row: at most 901 bytes, injective on all
// subjects.
func (s subject) key() string {
	return url.PathEscape(s.tenant) + "/" + url.PathEscape(s.env) + "/" + s.kind + "/" + url.PathEscape(s.id)
}

func parseSubject(key string) (subject, error) {
	parts := strings.Split(key, "/")
	if len(parts) == 4 {
		id, err := url.PathUnescape(parts[3])
		s := subject{parts[0], parts[1], parts[2], id}
		known := s.kind == subjectToken || s.kind == subjectActor || s.kind == subjectTenant
		if err == nil && known && (s.id == "") == (s.kind == subjectTenant) && s.key() == key {
			return s, nil
		}
	}
	return subject{}, fmt.Errorf("auth: the stored revocation %q is damaged", key)
}

// revocationRow is the value of a revocation's row. By and RequestID are for
// whoever looks into it.
type revocationRow struct {
	At        time.Time `json:"revoked_at"`
	By        string    `json:"by"`
	RequestID string    `json:"request_id"`
}

// revocations has what was revoked, in memory and in a table. A row has no
// effect any more once it was kept for long enough, and is dropped at the next
// change or start.
type revocations struct {
	table table.Table
	keep  time.Duration // until every token that is covered has expired

	// changes holds off the next change until the last one is durable, so that
	// the table has the same rows as memory.
	changes sync.Mutex

	mu    sync.RWMutex
	at    map[subject]time.Time
	count map[subject]int // how many there are, by group
	ends  deadlines[subject]
	ahead map[subject]time.Time // see noteAhead; by scope
}

// openRevocations reads the table, and drops from it what has been kept for
// long enough.
func openRevocations(t table.Table, keep time.Duration, now time.Time) (*revocations, error) {
	r := &revocations{table: t, keep: keep, at: make(map[subject]time.Time), count: make(map[subject]int), ahead: make(map[subject]time.Time)}
	err := t.Scan(func(key string, value []byte) error {
		s, err := parseSubject(key)
		if err != nil {
			return err
		}
		var row revocationRow
		if err := json.Unmarshal(value, &row, json.RejectUnknownMembers(true)); err != nil || row.At.IsZero() {
			return fmt.Errorf("auth: the stored revocation %q is damaged", key)
		}
		r.set(s, row.At)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for {
		s, ok := r.forget(now)
		if !ok {
			return r, nil
		}
		if err := t.Delete(s.key(), table.Lazy); err != nil {
			return nil, err
		}
	}
}

// covers reports whether the credential that id is of has been revoked. It is
// asked at each request, and does not allocate.
func (r *revocations) covers(id *twinrail.Identity) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.at) == 0 {
		return false
	}
	if at, ok := r.at[subject{id.TenantID, id.Env, subjectToken, id.TokenID}]; ok && time.Since(at) < r.keep {
		return true
	}
	for _, s := range [...]subject{
		{id.TenantID, id.Env, subjectActor, id.ActorID},
		{id.TenantID, id.Env, subjectTenant, ""},
	} {
		at, ok := r.at[s]
		if ok && !id.IssuedAt.After(at) && time.Since(at) < r.keep { // the zero time is not after
			return true
		}
	}
	return false
}

// add makes the revocation of s durable and then has it take effect. It returns
// its moment, which is never before that of an earlier one of s.
func (r *revocations) add(s subject, c *Context, now time.Time) (time.Time, error) {
	r.changes.Lock()
	defer r.changes.Unlock()
	if err := r.sweep(now); err != nil {
		return time.Time{}, err
	}
	r.mu.RLock()
	was, again := r.at[s]
	full := r.count[s.group()] >= maxRevoked
	ahead := r.ahead[s.scope()]
	r.mu.RUnlock()
	if full && !again {
		return time.Time{}, tooMany(s.kind)
	}
	at := now.UTC()
	if was.After(at) {
		at = was
	}
	if s.kind != subjectToken && ahead.After(at) {
		at = ahead
	}
	value, err := json.Marshal(revocationRow{at, c.who().identity.ActorID, c.requestID})
	if err != nil {
		return time.Time{}, err
	}
	if err := r.table.Put(s.key(), value, table.Synced); err != nil {
		return time.Time{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(s, at)
	return at, nil
}

func tooMany(kind string) error {
	if kind == subjectToken {
		return twinrail.Errorf(twinrail.CodeLimitExceeded, kind, "%d tokens are revoked in this tenant and env: revoke the actor or the tenant instead", maxRevoked)
	}
	return twinrail.Errorf(twinrail.CodeLimitExceeded, kind, "%d actors are revoked in this tenant and env: revoke the tenant instead", maxRevoked)
}

// noteAhead notes that there is a token that says it was issued at iat, which is
// still to come: the issuer's clock is ahead. Who revokes before iat means that
// token too, and so a revocation by actor or of the tenant then counts as made at
// iat. There is one such time for each tenant and env.
func (r *revocations) noteAhead(id *twinrail.Identity, iat time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := subject{tenant: id.TenantID, env: id.Env}
	if iat.After(r.ahead[at]) {
		r.ahead[at] = iat
	}
}

// maxSweep bounds how many rows one change drops on its way.
const maxSweep = 64

func (r *revocations) sweep(now time.Time) error {
	for range maxSweep {
		r.mu.Lock()
		s, ok := r.forget(now)
		r.mu.Unlock()
		if !ok {
			return nil
		}
		if err := r.table.Delete(s.key(), table.Lazy); err != nil {
			return err
		}
	}
	return nil
}

func (r *revocations) set(s subject, at time.Time) {
	if _, again := r.at[s]; !again {
		r.count[s.group()]++
	}
	r.at[s] = at
	r.ends.set(s, at.Add(r.keep))
}

func (r *revocations) forget(now time.Time) (subject, bool) {
	s, ok := r.ends.due(now)
	if !ok {
		return subject{}, false
	}
	delete(r.at, s)
	if r.count[s.group()]--; r.count[s.group()] == 0 {
		delete(r.count, s.group())
	}
	return s, true
}

// Revoke makes credentials of c's tenant and env void: every one with a jti; or
// those of an actor, or of everybody, that were issued up to now or that do not
// say when. An iat has whole seconds: what is issued in the second of the
// revocation, after it, counts as issued before. Where a token of the tenant whose
// iat is still to come was verified before, the moment of the revocation is that.
//
// It is durable on return. It needs the permission session:revoke, else it has
// code not_found; bad_request names what is wrong in the request;
// limit_exceeded says that too many tokens or actors are revoked one by one, and
// unavailable that it could not be stored.
func (g *Gate) Revoke(c *Context, what twinrail.RevocationRequest) (twinrail.RevocationResponse, error) {
	if !c.who().mayRevoke() {
		return twinrail.RevocationResponse{}, errNotFound
	}
	id := &c.who().identity
	s, err := subjectOf(what, id.TenantID, id.Env)
	if err != nil {
		return twinrail.RevocationResponse{}, err
	}
	at, err := g.revocations.add(s, c, time.Now())
	if err != nil {
		return twinrail.RevocationResponse{}, g.unavailable("the revocation cannot be stored", err)
	}
	g.opts.Logger.Info("credentials revoked", "kind", s.kind, "tenant", s.tenant, "env", s.env, "by", id.ActorID, "request_id", c.requestID)
	g.revoked(actor{id.TenantID, id.Env, what.ActorID})
	return twinrail.RevocationResponse{RevokedAt: at, ForgottenAt: at.Add(g.opts.MaxTokenAge)}, nil
}

func subjectOf(what twinrail.RevocationRequest, tenant, env string) (subject, error) {
	var given []subject
	if what.TokenID != "" {
		given = append(given, subject{tenant, env, subjectToken, what.TokenID})
	}
	if what.ActorID != "" {
		given = append(given, subject{tenant, env, subjectActor, what.ActorID})
	}
	if what.Tenant {
		given = append(given, subject{tenant, env, subjectTenant, ""})
	}
	switch {
	case len(given) == 0:
		return subject{}, twinrail.Errorf(twinrail.CodeBadRequest, subjectToken, "one of jti, actor_id and tenant must be given")
	case len(given) > 1:
		return subject{}, twinrail.Errorf(twinrail.CodeBadRequest, given[1].kind, "only one of jti, actor_id and tenant can be given")
	case len(what.TokenID) > maxTokenID:
		return subject{}, twinrail.Errorf(twinrail.CodeBadRequest, subjectToken, "has more than %d bytes", maxTokenID)
	case what.ActorID != "" && !twinrail.ValidKeyValue(twinrail.KeyActor, what.ActorID):
		return subject{}, twinrail.Errorf(twinrail.CodeBadRequest, subjectActor, "not a valid value")
	}
	return given[0], nil
}

// Revoked reports whether p's credential has been revoked, or the cookie session
// that p came by been ended, since. A session that is just over has not been.
func (g *Gate) Revoked(p *Principal) bool {
	return p.login != nil && p.login.ended.Load() || g.revocations.covers(&p.identity)
}

// OnRevoke has fn called after each change of what Revoked says, by whoever made
// the change, with whom it is about: an actor of a tenant in an env, or, where the
// actor is "", any there. It is to be called before the gate is used, once.
func (g *Gate) OnRevoke(fn func(tenant, env, actor string)) { g.onRevoke = fn }

func (g *Gate) revoked(whose actor) {
	if g.onRevoke != nil {
		g.onRevoke(whose.tenant, whose.env, whose.id)
	}
}
