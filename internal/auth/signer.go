package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
)

// SignerOptions says how tokens are signed, and what they say besides whom they
// are for. The zero value of any field but Key means that it is left out.
type SignerOptions struct {
	// Key signs. Its material is what a [Key] of a verifier has, with the private
	// key in place of the public one. Algorithm is one of those of the material,
	// by default the first of them. ID is the token's kid.
	Key Key
	// Issuer is the token's iss.
	Issuer string
	// Audiences is its aud.
	Audiences []string
}

// Signer signs tokens. Its methods may be called concurrently.
type Signer struct {
	o      SignerOptions
	method jwt.SigningMethod
}

// NewSigner returns a Signer. Its errors say nothing of the key but its type and
// its size.
func NewSigner(o SignerOptions) (*Signer, error) {
	public := Key{ID: o.Key.ID, Algorithm: o.Key.Algorithm, Material: o.Key.Material}
	if _, secret := o.Key.Material.([]byte); !secret {
		private, ok := o.Key.Material.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a %T is not a key that signs", o.Key.Material)
		}
		public.Material = private.Public()
	}
	pinned, err := pin(public)
	if err != nil {
		return nil, err
	}
	return &Signer{o, jwt.GetSigningMethod(pinned.algorithms[0])}, nil
}

// Mint returns a token for id that is valid for ttl, rounded up to the second. It
// runs from id.IssuedAt, or from now where that is zero; id.ExpiresAt is not used.
// An id.TokenID that is "" becomes a UUIDv7. What a [Verifier] would refuse, an
// unknown env, iss or aud apart, is an error that names the claim.
func (s *Signer) Mint(id twinrail.Identity, ttl time.Duration) (string, error) {
	if ttl <= 0 {
		return "", errors.New("a token must be valid for some time")
	}
	if id.TokenID == "" {
		tokenID, err := uuid.NewV7()
		if err != nil {
			return "", err
		}
		id.TokenID = tokenID.String()
	}
	if id.IssuedAt.IsZero() {
		id.IssuedAt = time.Now()
	}
	if name := badMember(id, nil); name != "" {
		return "", fmt.Errorf("not a valid %s", name)
	}
	claims := jwt.MapClaims{
		"sub":        id.ActorID,
		"actor_type": id.ActorType,
		"tenant_id":  id.TenantID,
		"env":        id.Env,
		"role":       id.Role,
		"jti":        id.TokenID,
		"iat":        id.IssuedAt.Unix(),
		"exp":        id.IssuedAt.Add(ttl + time.Second - time.Nanosecond).Unix(),
		"grants":     id.Grants,
	}
	if s.o.Issuer != "" {
		claims["iss"] = s.o.Issuer
	}
	if len(s.o.Audiences) > 0 {
		claims["aud"] = jwt.ClaimStrings(s.o.Audiences)
	}
	raw, err := s.Sign(claims)
	if err != nil {
		return "", err
	}
	if len(raw) > MaxToken || len(id.Grants) > maxGrants {
		return "", fmt.Errorf("too many grants: the token has %d bytes, more than %d", len(raw), MaxToken)
	}
	return raw, nil
}

// Sign returns a token that says just that, be it what a [Verifier] refuses.
func (s *Signer) Sign(claims map[string]any) (string, error) {
	token := jwt.NewWithClaims(s.method, jwt.MapClaims(claims))
	if s.o.Key.ID != "" {
		token.Header["kid"] = s.o.Key.ID
	}
	return token.SignedString(s.o.Key.Material)
}

// Public returns the public key of what signs, nil where that is a secret.
func (s *Signer) Public() crypto.PublicKey {
	if private, ok := s.o.Key.Material.(crypto.Signer); ok {
		return private.Public()
	}
	return nil
}

// ParseSigningKey reads what tokens are signed with. It is a private key in PEM
// (PKCS #8, PKCS #1 or SEC 1, not encrypted) or a JSON Web Key, which may be a
// symmetric one and has its kid and alg with it; whatever else it is, it is an HMAC
// secret, byte for byte. Its errors say nothing of the text but its form.
func ParseSigningKey(text []byte) (Key, error) {
	var object map[string]json.RawMessage
	switch {
	case bytes.Contains(text, []byte("-----BEGIN ")):
		material, err := parsePrivatePEM(text)
		return Key{Material: material}, err
	case json.Unmarshal(text, &object) == nil:
		return parseSigningJWK(text)
	}
	return Key{Material: text}, nil
}

// parsePrivatePEM returns the one private key of a PEM file. What else is in it,
// such as a certificate or the parameters of a curve, is for others.
func parsePrivatePEM(text []byte) (material any, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			continue
		case material != nil:
			return nil, errors.New("the PEM file has more than one private key")
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New("the private key is encrypted")
		}
		if material, err = parsePrivateKey(block); err != nil {
			return nil, err
		}
	}
	if material == nil {
		return nil, errors.New("the PEM file has no private key")
	}
	return material, nil
}

func parsePrivateKey(block *pem.Block) (material any, err error) {
	switch block.Type {
	case "PRIVATE KEY":
		material, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		material, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		material, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a %q is not a key that signs tokens", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s is damaged", block.Type)
	}
	return material, nil
}

func parseSigningJWK(text []byte) (Key, error) {
	jwk, err := jwkset.NewJWKFromRawJSON(text, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	if err != nil {
		return Key{}, errors.New("not a JSON Web Key of a known type")
	}
	m := jwk.Marshal()
	if m.USE != "" && m.USE != jwkset.UseSig || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsSign) {
		return Key{}, errors.New("the JSON Web Key is not one for signing: see its use and key_ops")
	}
	return Key{ID: m.KID, Algorithm: string(m.ALG), Material: jwk.Key()}, nil
}
