package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// MaxToken bounds a token in bytes; a longer one is refused before it is parsed.
const MaxToken = 8 << 10

// VerifierOptions says which credentials are accepted. At least one key or JWKS
// URL is needed; the zero value of any other field means its default.
type VerifierOptions struct {
	// Keys are fixed keys.
	Keys []Key

	// JWKS lists the URLs (https or http) of JSON Web Key Sets. Their keys are
	// cached. A key without a kid serves only tokens without one. A symmetric
	// key in a set is left out, as is one whose use, key_ops or alg is not for
	// verifying signatures.
	JWKS []string
	// JWKSRefresh is how often each set is fetched anew. Default 5 min.
	JWKSRefresh time.Duration
	// JWKSCooldown is the least time between two fetches of a set, whoever asks
	// for them: a token with an unknown kid, or the retry after a failure.
	// Default 10 s.
	JWKSCooldown time.Duration
	// JWKSTimeout bounds one fetch. Default 5 s.
	JWKSTimeout time.Duration
	// JWKSClient does the fetches. Default one that follows no redirects.
	JWKSClient *http.Client

	// Issuer, where given, is what iss must be.
	Issuer string
	// Audiences, where given, lists values of which aud must hold one.
	Audiences []string
	// Envs lists the environments that exist. Default dev, staging, prod.
	Envs []string
	// Logger takes failures to fetch a set. Default discards.
	Logger *slog.Logger
}

// DefaultEnvs returns the environments that exist unless configured.
func DefaultEnvs() []string { return []string{"dev", "staging", "prod"} }

func (o VerifierOptions) withDefaults() VerifierOptions {
	o.JWKSRefresh = cmp.Or(o.JWKSRefresh, 5*time.Minute)
	o.JWKSCooldown = cmp.Or(o.JWKSCooldown, 10*time.Second)
	o.JWKSTimeout = cmp.Or(o.JWKSTimeout, 5*time.Second)
	if o.JWKSClient == nil {
		o.JWKSClient = defaultJWKSClient()
	}
	if len(o.Envs) == 0 {
		o.Envs = DefaultEnvs()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o VerifierOptions) parser(algorithms []string) *jwt.Parser {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms), jwt.WithExpirationRequired(), jwt.WithStrictDecoding(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if len(o.Audiences) > 0 {
		options = append(options, jwt.WithAudience(o.Audiences...))
	}
	return jwt.NewParser(options...)
}

// Verifier verifies credentials. Its methods may be called concurrently.
type Verifier struct {
	keys   []pinnedKey
	sets   []*remoteSet
	parser *jwt.Parser
	envs   []string
	stop   context.CancelFunc // ends the goroutines of sets
}

// NewVerifier returns a Verifier. With JWKS URLs it starts fetching them, waits
// for none of them, and must be closed.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	o = o.withDefaults()
	v := &Verifier{envs: o.Envs}
	for _, env := range v.envs {
		if !twinrail.ValidKeyValue(twinrail.KeyEnv, env) {
			return nil, fmt.Errorf("auth: %q cannot be the name of an env", env)
		}
	}
	if len(o.Keys) == 0 && len(o.JWKS) == 0 {
		return nil, errors.New("auth: no key and no JWKS URL to verify credentials with")
	}
	for i, k := range o.Keys {
		pinned, err := pin(k)
		if err != nil {
			return nil, fmt.Errorf("auth: key %d: %w", i+1, err)
		}
		v.keys = append(v.keys, pinned)
	}
	for _, address := range o.JWKS {
		set, err := newRemoteSet(address, o)
		if err != nil {
			return nil, fmt.Errorf("auth: JWKS URL: %w", err)
		}
		v.sets = append(v.sets, set)
	}
	v.parser = o.parser(v.algorithms())
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	for _, set := range v.sets {
		go set.run(ctx)
	}
	return v, nil
}

// algorithms returns those that some key may verify; a token with another one is
// refused before anyone looks for its key.
func (v *Verifier) algorithms() []string {
	var all []string
	for _, k := range v.keys {
		all = append(all, k.algorithms...)
	}
	if len(v.sets) > 0 {
		all = slices.Concat(all, rsaAlgorithms, ecdsaAlgorithms, ed25519Algorithms)
	}
	return all
}

// Close ends the fetching of key sets. A Verifier without any needs no Close.
func (v *Verifier) Close() {
	v.stop()
	for _, set := range v.sets {
		<-set.ended
	}
}

// Verify returns whom the token raw, a JWT, speaks for. Its errors are
// [twinrail.Error] with code credential_invalid, whose detail names the check
// that failed and nothing of the token; credential_expired, where nothing else
// is wrong; and unavailable, where a key set that may hold the key cannot be
// fetched. Where ctx ends first it returns ctx.Err().
//
// Claims that may be left out: actor_type is then human, role is member, and
// there are no grants, which gives no right to any stream.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Principal, error) {
	if len(raw) > MaxToken || !wellFormed(raw) {
		return nil, invalid("form")
	}
	var c claims
	_, err := v.parser.ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) { return v.keysFor(ctx, t) })
	if err != nil {
		return nil, refusal(err)
	}
	id, err := c.identity(v.envs)
	if err != nil {
		return nil, err
	}
	return &Principal{identity: id}, nil
}

// wellFormed reports whether raw has only the characters of a JWT. The base64
// decoder would pass over line breaks.
func wellFormed(raw string) bool {
	for i := range len(raw) {
		switch c := raw[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// keysFor returns the keys on which the token's signature is tried. What else
// the header brings along (jwk, jku, x5c, x5u) is never looked at.
func (v *Verifier) keysFor(ctx context.Context, t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, invalid("crit")
	}
	kid := ""
	if value, ok := t.Header["kid"]; ok {
		if kid, ok = value.(string); !ok || kid == "" {
			return nil, invalid("kid")
		}
	}
	alg := t.Method.Alg()
	if found := v.cached(kid, alg); len(found) > 0 {
		return jwt.VerificationKeySet{Keys: found}, nil
	}
	var failed bool
	for _, set := range v.sets {
		err := set.refresh(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed = failed || err != nil
	}
	if found := v.cached(kid, alg); len(found) > 0 {
		return jwt.VerificationKeySet{Keys: found}, nil
	}
	if failed {
		return nil, twinrail.Errorf(twinrail.CodeUnavailable, "", "the keys that verify credentials cannot be fetched")
	}
	return nil, invalid("key")
}

func (v *Verifier) cached(kid, alg string) []jwt.VerificationKey {
	var found []jwt.VerificationKey
	for i := range v.keys {
		if v.keys[i].serves(kid, alg) {
			found = append(found, v.keys[i].material)
		}
	}
	for _, set := range v.sets {
		for _, k := range set.cached() {
			if (kid == "" || k.id == kid) && slices.Contains(k.algorithms, alg) {
				found = append(found, k.material)
			}
		}
	}
	return found
}

// invalid returns the answer to a credential that failed the named check.
func invalid(check string) error {
	return &twinrail.Error{Code: twinrail.CodeCredentialInvalid, Detail: check}
}

// refusal turns an error of the JWT library into the caller's.
func refusal(err error) error {
	var own *twinrail.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, jwt.ErrTokenMalformed):
		return invalid("form")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return invalid("algorithm")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return invalid("signature")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return invalid("issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return invalid("audience")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid("a required claim is missing")
	case errors.Is(err, jwt.ErrInvalidType):
		return invalid("a claim has the wrong form")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return invalid("not valid yet")
	case errors.Is(err, jwt.ErrTokenExpired):
		return &twinrail.Error{Code: twinrail.CodeCredentialExpired}
	}
	return invalid("claims")
}
