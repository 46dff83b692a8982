package auth

import (
	"cmp"
	"slices"
	"time"

	"github.com/twinrail/twinrail"
)

// Principal is who a verified credential speaks for: a token, or a ticket or
// cookie that was got with one. Only [Verifier.Verify] and the [Gate] make one.
// It is not changed once made. The zero Principal is nobody, and enters nowhere.
type Principal struct {
	identity twinrail.Identity
	carriage carriage
	scope    *scope // of a ticket; nil is unscoped
	login    *login // of a cookie session, else nil
}

// Identity returns what the credential says. The caller must not change its
// Grants.
func (p *Principal) Identity() twinrail.Identity { return p.identity }

// ExpiresAt returns when the credential, and with it every connection that was
// opened with it, ends.
func (p *Principal) ExpiresAt() time.Time { return p.identity.ExpiresAt }

// Context is a RequestContext that has passed the checks: a principal, the keys
// in which it acts, of which tenant and env are the credential's, and the ids
// that are stamped on what the request publishes. Only [Principal.Enter] makes
// one. The zero Context is nobody's, and gives no right.
type Context struct {
	principal   *Principal // see who
	routing     twinrail.Routing
	requestID   string
	traceparent string
}

// Principal returns whose request it is.
func (c *Context) Principal() *Principal { return c.who() }

// who is for all who look at the principal: that of the zero Context is nobody.
func (c *Context) who() *Principal {
	if c.principal == nil {
		return new(Principal)
	}
	return c.principal
}

// Routing returns the keys that the request stated.
func (c *Context) Routing() twinrail.Routing { return c.routing }

// RequestID returns the id of the request.
func (c *Context) RequestID() string { return c.requestID }

// Traceparent returns the W3C traceparent of the request, or "".
func (c *Context) Traceparent() string { return c.traceparent }

// Enter checks that the stated keys are well formed (400), that tenant and env
// are among them (400) and are the credential's, and that an actor, where one is
// stated, is the credential's (403).
func (p *Principal) Enter(stated twinrail.Routing, requestID, traceparent string) (*Context, error) {
	for _, k := range []twinrail.Key{twinrail.KeyTenant, twinrail.KeyEnv} {
		if stated.Get(k) == "" {
			return nil, twinrail.Errorf(twinrail.CodeContextMissing, k.String(), "every request states it, in the header %s or in the query", k.Header())
		}
	}
	if err := stated.Validate(); err != nil {
		return nil, err
	}
	if err := p.owns(stated); err != nil {
		return nil, err
	}
	return &Context{p, stated, requestID, traceparent}, nil
}

func (p *Principal) owns(r twinrail.Routing) error {
	if r.TenantID != p.identity.TenantID {
		return &twinrail.Error{Code: twinrail.CodeContextMismatch, Field: twinrail.KeyTenant.String()}
	}
	if r.Env != p.identity.Env {
		return &twinrail.Error{Code: twinrail.CodeContextMismatch, Field: twinrail.KeyEnv.String()}
	}
	if r.ActorID != "" && r.ActorID != p.identity.ActorID {
		return &twinrail.Error{Code: twinrail.CodeActorMismatch, Field: twinrail.KeyActor.String()}
	}
	return nil
}

// Reader is the right of one actor to read some channels of one stream, holding
// an audience. Only this package makes one; the zero Reader reads nothing.
type Reader struct {
	home     twinrail.Home
	key      string
	audience twinrail.Audience
	actor    string
	channels twinrail.ChannelSet
}

// Writer is the right of one actor to publish on one channel at one address.
// Only this package makes one; nothing can be stored without it, nor with the zero
// Writer.
type Writer struct {
	address     twinrail.Address
	key         string
	channel     twinrail.Channel
	actor       string
	actorType   twinrail.ActorType
	requestID   string
	traceparent string
}

var errNotFound = &twinrail.Error{Code: twinrail.CodeNotFound}

// Reader authorizes reading every channel of want at the address that stated
// names together with the context. What the grants do not cover is not_found,
// as is what does not exist.
func (c *Context) Reader(stated twinrail.Routing, kind twinrail.Kind, want twinrail.ChannelSet) (Reader, error) {
	r, err := c.ReaderOfAny(stated, kind, want)
	if err != nil {
		return Reader{}, err
	}
	if r.channels != want {
		return Reader{}, errNotFound
	}
	return r, nil
}

// ReaderOfAny is [Context.Reader] for those channels of want that the grants
// cover, of which there must be at least one.
func (c *Context) ReaderOfAny(stated twinrail.Routing, kind twinrail.Kind, want twinrail.ChannelSet) (Reader, error) {
	address, err := c.resolve(stated, kind)
	if err != nil {
		return Reader{}, err
	}
	var granted twinrail.ChannelSet
	for _, ch := range want.Channels() {
		if ch.In(kind) && c.who().may(address, ch, twinrail.Read) {
			granted |= twinrail.ChannelsOf(ch)
		}
	}
	if granted == 0 {
		return Reader{}, errNotFound
	}
	return Reader{address.Home, address.Home.Key(), address.Audience, c.who().identity.ActorID, granted}, nil
}

// Writer authorizes publishing on channel at the address that stated names
// together with the context. Its errors are those of [Context.Reader], and
// bad_request where the channel is none.
func (c *Context) Writer(stated twinrail.Routing, channel twinrail.Channel) (Writer, error) {
	kind := twinrail.ThreadStream
	if channel.In(twinrail.CanvasStream) {
		kind = twinrail.CanvasStream
	}
	if !channel.In(kind) || channel == twinrail.Presence {
		return Writer{}, twinrail.Errorf(twinrail.CodeBadRequest, "channel", "must be commit, artifact, gesture, chat or tool")
	}
	return c.writer(stated, kind, channel)
}

// Presenter authorizes being present at the address of the given kind that
// stated names together with the context: it returns a Writer on the channel
// presence. Its errors are those of [Context.Reader].
func (c *Context) Presenter(stated twinrail.Routing, kind twinrail.Kind) (Writer, error) {
	return c.writer(stated, kind, twinrail.Presence)
}

func (c *Context) writer(stated twinrail.Routing, kind twinrail.Kind, channel twinrail.Channel) (Writer, error) {
	address, err := c.resolve(stated, kind)
	if err != nil {
		return Writer{}, err
	}
	if !channel.In(kind) || !c.who().may(address, channel, twinrail.Write) {
		return Writer{}, errNotFound
	}
	id := &c.who().identity
	return Writer{address, address.Home.Key(), channel, id.ActorID, id.ActorType, c.requestID, c.traceparent}, nil
}

// resolve checks keys that came in the body of a request or in a frame just
// like those of the request itself.
func (c *Context) resolve(stated twinrail.Routing, kind twinrail.Kind) (twinrail.Address, error) {
	if err := stated.Validate(); err != nil {
		return twinrail.Address{}, err
	}
	// Tenant, env and actor first: they differ from the context's only where
	// they differ from the credential's, which is the answer that helps.
	own := stated
	own.TenantID, own.Env = cmp.Or(own.TenantID, c.routing.TenantID), cmp.Or(own.Env, c.routing.Env)
	if err := c.who().owns(own); err != nil {
		return twinrail.Address{}, err
	}
	merged, err := stated.Merge(c.routing)
	if err != nil {
		return twinrail.Address{}, err
	}
	return merged.Address(kind)
}

func (p *Principal) may(a twinrail.Address, channel twinrail.Channel, right twinrail.Right) bool {
	return p.scope.allows(a, channel) && slices.ContainsFunc(p.identity.Grants, func(g twinrail.Grant) bool {
		return g.Allows(channel, right) && g.Covers(a)
	})
}

// Valid reports whether r came from an authorization.
func (r Reader) Valid() bool { return r.key != "" }

// Home returns the stream that r may read.
func (r Reader) Home() twinrail.Home { return r.home }

// Key returns [twinrail.Home.Key] of the stream that r may read.
func (r Reader) Key() string { return r.key }

// Channels returns the channels that r may read.
func (r Reader) Channels() twinrail.ChannelSet { return r.channels }

// Admits is the match rule within a stream: whether an event on channel that
// names audience and to is meant for r. The owner is the key of the stream that
// the event was stored in; with any other key than r's the answer is no, but see
// [Reader.Owns], which tells the difference.
func (r Reader) Admits(owner string, channel twinrail.Channel, audience twinrail.Audience, to []string) bool {
	return r.Owns(owner) && r.channels.Has(channel) && audience.HeldBy(r.audience) &&
		(len(to) == 0 || slices.Contains(to, r.actor))
}

// Owns reports whether owner is the key of r's stream. Where an event that is
// about to be delivered to r is not r's, isolation has failed elsewhere.
func (r Reader) Owns(owner string) bool { return r.key != "" && r.key == owner }

// Key returns [twinrail.Home.Key] of the stream that w may write to.
func (w Writer) Key() string { return w.key }

// Address returns the address that w may publish at.
func (w Writer) Address() twinrail.Address { return w.address }

// Channel returns the channel that w may publish on.
func (w Writer) Channel() twinrail.Channel { return w.channel }

// Actor returns who w is the right of, and what that is.
func (w Writer) Actor() (string, twinrail.ActorType) { return w.actor, w.actorType }

// Stamp writes into e what only the server says: channel, routing with the
// actor, the actor's type, and the ids of the request.
func (w Writer) Stamp(e *twinrail.Event) {
	e.Channel = w.channel
	e.Routing = w.address.Routing()
	e.Routing.ActorID = w.actor
	e.ActorType = w.actorType
	e.RequestID = w.requestID
	e.Traceparent = w.traceparent
}
