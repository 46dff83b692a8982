package twinrail

import (
	"fmt"
	"strings"
)

// A Key is one of the eleven routing keys. Their order is fixed.
type Key int

// The routing keys, in their order.
const (
	KeyTenant Key = iota
	KeyEnv
	KeyWorkspace
	KeyProject
	KeyApp
	KeySurface
	KeyCanvas
	KeyProjection
	KeyPanel
	KeyThread
	KeyActor
	numKeys
)

var keyNames = [numKeys]string{
	"tenant_id", "env", "workspace_id", "project_id", "app_id", "surface_id",
	"canvas_id", "projection_id", "panel_id", "thread_id", "actor_id",
}

var keyHeaders = [numKeys]string{
	"X-Tenant-Id", "X-Env", "X-Workspace-Id", "X-Project-Id", "X-App-Id", "X-Surface-Id",
	"X-Canvas-Id", "X-Projection-Id", "X-Panel-Id", "X-Thread-Id", "X-Actor-Id",
}

// Keys returns the eleven keys in their order.
func Keys() []Key {
	keys := make([]Key, numKeys)
	for i := range keys {
		keys[i] = Key(i)
	}
	return keys
}

// String returns the key's name in JSON and in a query string, such as "tenant_id".
func (k Key) String() string { return keyNames[k] }

// Header returns the request header that carries the key, such as "X-Tenant-Id".
func (k Key) Header() string { return keyHeaders[k] }

// Routing is a set of routing keys as somebody stated them: well formed at
// best, never trusted. The empty string means that a key is not given.
//
// What it takes to read or write at such an address is an authorized address,
// which is another type and comes from internal/auth alone.
type Routing struct {
	TenantID     string `json:"tenant_id,omitempty"`
	Env          string `json:"env,omitempty"`
	WorkspaceID  string `json:"workspace_id,omitempty"`
	ProjectID    string `json:"project_id,omitempty"`
	AppID        string `json:"app_id,omitempty"`
	SurfaceID    string `json:"surface_id,omitempty"`
	CanvasID     string `json:"canvas_id,omitempty"`
	ProjectionID string `json:"projection_id,omitempty"`
	PanelID      string `json:"panel_id,omitempty"`
	ThreadID     string `json:"thread_id,omitempty"`
	ActorID      string `json:"actor_id,omitempty"`
}

func (r *Routing) field(k Key) *string {
	switch k {
	case KeyTenant:
		return &r.TenantID
	case KeyEnv:
		return &r.Env
	case KeyWorkspace:
		return &r.WorkspaceID
	case KeyProject:
		return &r.ProjectID
	case KeyApp:
		return &r.AppID
	case KeySurface:
		return &r.SurfaceID
	case KeyCanvas:
		return &r.CanvasID
	case KeyProjection:
		return &r.ProjectionID
	case KeyPanel:
		return &r.PanelID
	case KeyThread:
		return &r.ThreadID
	case KeyActor:
		return &r.ActorID
	}
	panic(fmt.Sprintf("twinrail: no routing key %d", k))
}

// Get returns the value of k, or "" where it is not given.
func (r Routing) Get(k Key) string { return *r.field(k) }

// Set gives k the value v.
func (r *Routing) Set(k Key, v string) { *r.field(k) = v }

// Validate reports the first key, in their order, whose value is not well
// formed, as an [Error] with code context_invalid and the key's name as field.
// A key that is not given is well formed.
func (r Routing) Validate() error {
	for k := range numKeys {
		if v := r.Get(k); v != "" && !ValidKeyValue(k, v) {
			return Errorf(CodeContextInvalid, k.String(), "not a valid value: %s", keyForm(k))
		}
	}
	return nil
}

// Merge adds to r the keys that only other gives. A key that both give with
// different values is an [Error] with code context_conflict.
func (r Routing) Merge(other Routing) (Routing, error) {
	for k := range numKeys {
		a, b := r.Get(k), other.Get(k)
		switch {
		case a == "":
			r.Set(k, b)
		case b != "" && a != b:
			return Routing{}, Errorf(CodeContextConflict, k.String(), "given twice with different values")
		}
	}
	return r, nil
}

func keyForm(k Key) string {
	if k == KeyTenant {
		return "t_ and then 1 to 62 lower-case letters, digits, _ or -"
	}
	return "1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit"
}

// ValidKeyValue reports whether v is well formed as a value of k: 1 to 64 of
// A-Z a-z 0-9 _ -, starting with a letter or digit; for the tenant t_ and then
// at least one of a-z 0-9 _ -. Whether an env is one that the server knows is
// the server's to say.
func ValidKeyValue(k Key, v string) bool {
	if len(v) == 0 || len(v) > 64 || v[0] == '_' || v[0] == '-' {
		return false
	}
	for i := range len(v) {
		c := v[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		case 'A' <= c && c <= 'Z' && k != KeyTenant:
		default:
			return false
		}
	}
	return k != KeyTenant || (len(v) > 2 && v[:2] == "t_")
}

// A Kind says which of the two kinds of stream an address belongs to.
type Kind byte

// The kinds of stream. Their values are part of what is stored.
const (
	CanvasStream Kind = 'c'
	ThreadStream Kind = 't'
)

// String returns "canvas" or "thread".
func (k Kind) String() string {
	switch k {
	case CanvasStream:
		return "canvas"
	case ThreadStream:
		return "thread"
	}
	return fmt.Sprintf("Kind(%d)", byte(k))
}

// Home names one stream: the keys that say where an event lives. ID is the
// canvas or the thread, as Kind says. It is comparable.
type Home struct {
	Kind        Kind
	TenantID    string
	Env         string
	WorkspaceID string
	ProjectID   string
	AppID       string
	ID          string
}

var homeKeys = [...]Key{KeyTenant, KeyEnv, KeyWorkspace, KeyProject, KeyApp}

func (k Kind) idKey() Key {
	if k == CanvasStream {
		return KeyCanvas
	}
	return KeyThread
}

// Home returns the stream of the given kind that r names. A home key that is
// not given is an [Error] with code context_missing and the key's name as field.
func (r Routing) Home(kind Kind) (Home, error) {
	for _, k := range homeKeys {
		if r.Get(k) == "" {
			return Home{}, missing(k, kind)
		}
	}
	id := r.Get(kind.idKey())
	if id == "" {
		return Home{}, missing(kind.idKey(), kind)
	}
	return Home{kind, r.TenantID, r.Env, r.WorkspaceID, r.ProjectID, r.AppID, id}, nil
}

func missing(k Key, kind Kind) error {
	return Errorf(CodeContextMissing, k.String(), "a %s stream needs it", kind)
}

// Routing returns the home keys as a Routing.
func (h Home) Routing() Routing {
	r := Routing{TenantID: h.TenantID, Env: h.Env, WorkspaceID: h.WorkspaceID, ProjectID: h.ProjectID, AppID: h.AppID}
	r.Set(h.Kind.idKey(), h.ID)
	return r
}

func (h Home) values() [6]string {
	return [6]string{h.TenantID, h.Env, h.WorkspaceID, h.ProjectID, h.AppID, h.ID}
}

// Key returns h in the one encoding under which a stream is stored, cached and
// addressed: the kind, and then each value, escaped and terminated:
//
//	c/t_acme/dev/w1/p1/studio/c1/
//
// Every byte of a value outside of A-Z a-z 0-9 _ - is written =XX. The encoding
// is injective on all strings, not only on valid ones, and no key is a prefix
// of another one.
func (h Home) Key() string {
	values := h.values()
	return encodeKey(h.Kind, values[:])
}

const keyTerminator = '/'

func encodeKey(kind Kind, values []string) string {
	n := 2
	for _, v := range values {
		n += len(v) + 1
	}
	b := make([]byte, 0, n)
	b = append(b, byte(kind), keyTerminator)
	for _, v := range values {
		b = append(appendEscaped(b, v), keyTerminator)
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

func appendEscaped(b []byte, v string) []byte {
	for i := range len(v) {
		c := v[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
			b = append(b, c)
		default:
			b = append(b, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

// ParseHomeKey is the inverse of [Home.Key] for the keys of valid homes.
func ParseHomeKey(key string) (Home, error) {
	parts := strings.Split(key, string(keyTerminator))
	if len(parts) != 8 || len(parts[0]) != 1 || parts[7] != "" {
		return Home{}, fmt.Errorf("twinrail: not a stream key: %q", key)
	}
	h := Home{Kind(parts[0][0]), parts[1], parts[2], parts[3], parts[4], parts[5], parts[6]}
	if h.Kind != CanvasStream && h.Kind != ThreadStream {
		return Home{}, fmt.Errorf("twinrail: not a stream key: %q", key)
	}
	for i, v := range h.values() {
		if !ValidKeyValue(min(Key(i), KeyApp), v) {
			return Home{}, fmt.Errorf("twinrail: not a stream key: %q", key)
		}
	}
	return h, nil
}

// Audience holds the keys that narrow who receives an event within its stream.
// For a canvas stream CanvasID is empty, for a thread stream ThreadID is: they
// belong to the home. It is comparable.
type Audience struct {
	SurfaceID    string
	CanvasID     string
	ProjectionID string
	PanelID      string
	ThreadID     string
}

// Audience returns the audience keys of r at a stream of the given kind.
func (r Routing) Audience(kind Kind) Audience {
	a := Audience{r.SurfaceID, r.CanvasID, r.ProjectionID, r.PanelID, r.ThreadID}
	if kind == CanvasStream {
		a.CanvasID = ""
	} else {
		a.ThreadID = ""
	}
	return a
}

// AddTo returns r with the keys of a set.
func (a Audience) AddTo(r Routing) Routing {
	for i, v := range a.Values() {
		if v != "" {
			r.Set(audienceKeys[i], v)
		}
	}
	return r
}

var audienceKeys = [...]Key{KeySurface, KeyCanvas, KeyProjection, KeyPanel, KeyThread}

// Values returns the five values in the order of the routing keys.
func (a Audience) Values() [5]string {
	return [5]string{a.SurfaceID, a.CanvasID, a.ProjectionID, a.PanelID, a.ThreadID}
}

// HeldBy reports whether a subscriber that holds the audience keys held may
// receive what names a: every key that a names is held with the same value.
func (a Audience) HeldBy(held Audience) bool {
	return within(a.SurfaceID, held.SurfaceID) && within(a.CanvasID, held.CanvasID) &&
		within(a.ProjectionID, held.ProjectionID) && within(a.PanelID, held.PanelID) &&
		within(a.ThreadID, held.ThreadID)
}

func within(named, held string) bool { return named == "" || named == held }

// Address is a stream and an audience in it: all that routes an event but for
// the actor. It is comparable.
type Address struct {
	Home     Home
	Audience Audience
}

// Address returns the address in a stream of the given kind that r names; its
// errors are those of [Routing.Home].
func (r Routing) Address(kind Kind) (Address, error) {
	home, err := r.Home(kind)
	if err != nil {
		return Address{}, err
	}
	return Address{home, r.Audience(kind)}, nil
}

// Routing returns the keys of a as a Routing, without an actor.
func (a Address) Routing() Routing { return a.Audience.AddTo(a.Home.Routing()) }

// Key returns a in the encoding of [Home.Key], with the five audience values
// after the home's, an absent one as an empty value. It is injective on
// addresses, and no address's key is a prefix of another address's.
func (a Address) Key() string {
	home, audience := a.Home.values(), a.Audience.Values()
	return encodeKey(a.Home.Kind, append(home[:], audience[:]...))
}
