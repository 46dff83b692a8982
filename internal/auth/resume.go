package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// MaxResumeToken bounds a resume token in bytes.
const MaxResumeToken = 64 << 10

// Resume is what a resume token is to say.
type Resume struct {
	SessionID string
	// Uses is how often the session had been resumed when the token was made.
	Uses uint64
	Subs []ResumeSub
}

// ResumeSub is one subscription of a session.
type ResumeSub struct {
	Name     string
	Kind     twinrail.Kind
	Routing  twinrail.Routing // all keys, the context's too; no actor
	Channels twinrail.ChannelSet
	Present  bool // the client is a member there
}

// Resumption is the right of one actor to go on with a session, as that was when
// the resume token was made. Only [Gate.OpenResume] makes one; the zero Resumption
// is of no session.
type Resumption struct{ said Resume }

// SessionID returns the session's id, "" of the zero Resumption.
func (r Resumption) SessionID() string { return r.said.SessionID }

// Uses returns how often the session had been resumed.
func (r Resumption) Uses() uint64 { return r.said.Uses }

// Subs returns the session's subscriptions. The caller must not change them.
func (r Resumption) Subs() []ResumeSub { return r.said.Subs }

const resumePrefix = "r1."

func newResumeKey(key []byte) ([]byte, error) {
	if len(key) < MinSecret {
		return nil, fmt.Errorf("auth: the key of resume tokens must have at least %d bytes, this one has %d", MinSecret, len(key))
	}
	return hkdf.Key(sha256.New, key, nil, "twinrail resume token 1", sha256.Size)
}

// SealResume returns the resume token that says so, bound to c's tenant, env,
// actor and credential. It has only A-Z a-z 0-9 . _ - and at most
// MaxResumeToken of them; where that is not enough it is "". A subscription
// costs some 25 bytes if it differs from the one before it in its thread alone.
func (g *Gate) SealResume(c *Context, r Resume) string {
	id := &c.who().identity
	body := appendResume(nil, resumeBody{
		tenant: id.TenantID, env: id.Env, actor: id.ActorID, tokenID: id.TokenID, issuedAt: id.IssuedAt, Resume: r,
	})
	signed := resumePrefix + base64.RawURLEncoding.EncodeToString(body)
	if token := signed + "." + g.signResume(signed); len(token) <= MaxResumeToken {
		return token
	}
	return ""
}

func (g *Gate) signResume(signed string) string {
	mac := hmac.New(sha256.New, g.resumeKey)
	mac.Write([]byte(signed))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// OpenResume returns the right that a resume token gives. It has code resume_invalid where
// the token was not made by this server, or not for c's tenant, env and actor;
// and credential_revoked where the credential that it was made for was revoked
// since.
func (g *Gate) OpenResume(c *Context, token string) (Resumption, error) {
	refused := &twinrail.Error{Code: twinrail.CodeResumeInvalid}
	if len(token) > MaxResumeToken {
		return Resumption{}, refused
	}
	// The signature is compared as text and covers text, so that no other
	// spelling of the same bytes is a token.
	dot := strings.LastIndexByte(token, '.')
	if dot < len(resumePrefix) || !strings.HasPrefix(token, resumePrefix) {
		return Resumption{}, refused
	}
	if !hmac.Equal([]byte(g.signResume(token[:dot])), []byte(token[dot+1:])) {
		return Resumption{}, refused
	}
	raw, err := base64.RawURLEncoding.DecodeString(token[len(resumePrefix):dot])
	if err != nil {
		return Resumption{}, refused
	}
	body, err := parseResume(raw)
	if err != nil {
		return Resumption{}, refused
	}
	id := &c.who().identity
	if body.tenant != id.TenantID || body.env != id.Env || body.actor != id.ActorID {
		return Resumption{}, refused
	}
	if g.revocations.covers(&twinrail.Identity{
		TenantID: body.tenant, Env: body.env, ActorID: body.actor, TokenID: body.tokenID, IssuedAt: body.issuedAt,
	}) {
		return Resumption{}, errRevoked
	}
	return Resumption{said: body.Resume}, nil
}

// resumeBody is all that a resume token says.
type resumeBody struct {
	tenant, env, actor string
	tokenID            string    // of the credential
	issuedAt           time.Time // of the credential; zero where it does not say
	Resume
}

// A body is strings behind their length, and numbers as uvarints: the identity,
// the session, how many subs there are, and the subs. A sub begins with 16 bits
// of flags: bit i says that the routing key i is that of the sub before it (of
// the first, no key but the identity's), the others are below. What is the same
// is left out.
const (
	flagSameChannels = 1 << 13
	flagThread       = 1 << 14
	flagPresent      = 1 << 15
)

func appendResume(b []byte, r resumeBody) []byte {
	for _, s := range []string{r.tenant, r.env, r.actor, r.tokenID} {
		b = appendString(b, s)
	}
	issued := uint64(0) // 0 is none
	if !r.issuedAt.IsZero() {
		issued = uint64(r.issuedAt.Unix()) + 1 // never before 1970
	}
	b = binary.AppendUvarint(b, issued)
	b = appendString(b, r.SessionID)
	b = binary.AppendUvarint(b, r.Uses)
	b = binary.AppendUvarint(b, uint64(len(r.Subs)))
	was := ResumeSub{Routing: twinrail.Routing{TenantID: r.tenant, Env: r.env}}
	for _, sub := range r.Subs {
		b = appendSub(b, &was, &sub)
		was = sub
	}
	return b
}

func appendSub(b []byte, was, sub *ResumeSub) []byte {
	var flags uint16
	for _, k := range resumeKeys() {
		if sub.Routing.Get(k) == was.Routing.Get(k) {
			flags |= 1 << k
		}
	}
	if sub.Channels == was.Channels {
		flags |= flagSameChannels
	}
	if sub.Kind == twinrail.ThreadStream {
		flags |= flagThread
	}
	if sub.Present {
		flags |= flagPresent
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = appendString(b, sub.Name)
	if flags&flagSameChannels == 0 {
		b = append(b, byte(sub.Channels))
	}
	for _, k := range resumeKeys() {
		if flags&(1<<k) == 0 {
			b = appendString(b, sub.Routing.Get(k))
		}
	}
	return b
}

// resumeKeys returns the keys of a sub: all but the actor.
func resumeKeys() []twinrail.Key { return twinrail.Keys()[:twinrail.KeyActor] }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errResumeBody = errors.New("auth: not the body of a resume token")

// parseResume is the inverse of appendResume.
func parseResume(b []byte) (resumeBody, error) {
	p := resumeParser{b: b}
	r := resumeBody{tenant: p.string(), env: p.string(), actor: p.string(), tokenID: p.string()}
	if issued := p.uvarint(); issued > maxDate {
		p.bad = true
	} else if issued > 0 {
		r.issuedAt = time.Unix(int64(issued-1), 0).UTC()
	}
	r.SessionID, r.Uses = p.string(), p.uvarint()
	n := p.uvarint()
	was := ResumeSub{Routing: twinrail.Routing{TenantID: r.tenant, Env: r.env}}
	for i := uint64(0); i < n && !p.bad; i++ { // a sub takes some of b, or is bad
		was = p.sub(was)
		r.Subs = append(r.Subs, was)
	}
	if p.bad || len(p.b) > 0 {
		return resumeBody{}, errResumeBody
	}
	return r, nil
}

// resumeParser reads from the front of b; after the first failure bad is set, and
// all it returns is empty.
type resumeParser struct {
	b   []byte
	bad bool
}

func (p *resumeParser) sub(was ResumeSub) ResumeSub {
	head := p.take(2)
	if p.bad {
		return ResumeSub{}
	}
	flags := binary.BigEndian.Uint16(head)
	sub := ResumeSub{Name: p.string(), Kind: twinrail.CanvasStream, Routing: was.Routing, Channels: was.Channels, Present: flags&flagPresent != 0}
	if flags&flagThread != 0 {
		sub.Kind = twinrail.ThreadStream
	}
	if flags&flagSameChannels == 0 {
		if channels := p.take(1); !p.bad {
			sub.Channels = twinrail.ChannelSet(channels[0])
		}
	}
	for _, k := range resumeKeys() {
		if flags&(1<<k) == 0 {
			sub.Routing.Set(k, p.string())
		}
	}
	return sub
}

func (p *resumeParser) take(n uint64) []byte {
	if p.bad || n > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	taken := p.b[:n]
	p.b = p.b[n:]
	return taken
}

func (p *resumeParser) string() string { return string(p.take(p.uvarint())) }

func (p *resumeParser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}
