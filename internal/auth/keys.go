package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// MinSecret is the least length of a secret in bytes.
const MinSecret = 32

// The bounds of an RSA modulus in bits. Above the upper one a verification costs
// more than an unauthenticated request is worth.
const (
	minRSA = 2048
	maxRSA = 8192
)

// Key is one key that credentials may be signed with. Its material pins the
// algorithms that it verifies; none of them is of another type of key:
//
//	[]byte              HS256, HS384, HS512; at least MinSecret bytes
//	*rsa.PublicKey      RS256, RS384, RS512, PS256, PS384, PS512; 2048 to 8192 bits
//	*ecdsa.PublicKey    ES256, ES384 or ES512, as its curve says
//	ed25519.PublicKey   EdDSA
type Key struct {
	// ID is the kid of the tokens that the key verifies. With "" it is tried on
	// every token, as every key is on a token without a kid.
	ID string
	// Algorithm, where given, leaves only this one of the algorithms above.
	Algorithm string
	Material  any
}

var (
	hmacAlgorithms    = []string{"HS256", "HS384", "HS512"}
	rsaAlgorithms     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	ecdsaAlgorithms   = []string{"ES256", "ES384", "ES512"} // P-256, P-384, P-521
	ed25519Algorithms = []string{"EdDSA"}
)

// ParsePublicKeys reads the public keys and certificates of a PEM file, at least
// one. Of a certificate only the key counts.
func ParsePublicKeys(text []byte) ([]Key, error) {
	var keys []Key
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		material, err := parsePublicKey(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, Key{Material: material})
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block found")
	}
	return keys, nil
}

func parsePublicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return certificate.PublicKey, nil
	}
	return nil, fmt.Errorf("is a %q, not a public key", block.Type)
}

// pinnedKey is a Key that was checked, with the algorithms that it verifies.
type pinnedKey struct {
	id         string
	algorithms []string
	material   any
}

func pin(k Key) (pinnedKey, error) {
	algorithms, err := algorithmsOf(k.Material)
	if err != nil {
		return pinnedKey{}, err
	}
	if k.Algorithm != "" {
		if !slices.Contains(algorithms, k.Algorithm) {
			return pinnedKey{}, fmt.Errorf("algorithm %q is not one of this key's: %v", k.Algorithm, algorithms)
		}
		algorithms = []string{k.Algorithm}
	}
	return pinnedKey{k.ID, algorithms, k.Material}, nil
}

func algorithmsOf(material any) ([]string, error) {
	switch key := material.(type) {
	case []byte:
		if len(key) < MinSecret {
			return nil, fmt.Errorf("a secret must have at least %d bytes, this one has %d", MinSecret, len(key))
		}
		return hmacAlgorithms, nil
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("an RSA key must have %d to %d bits, this one has %d", minRSA, maxRSA, bits)
		}
		return rsaAlgorithms, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return ecdsaAlgorithms[0:1], nil
		case elliptic.P384():
			return ecdsaAlgorithms[1:2], nil
		case elliptic.P521():
			return ecdsaAlgorithms[2:3], nil
		}
		return nil, errors.New("an ECDSA key must be on P-256, P-384 or P-521")
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 key has %d bytes, this one has %d", ed25519.PublicKeySize, len(key))
		}
		return ed25519Algorithms, nil
	}
	return nil, fmt.Errorf("a %T is not a key that verifies signatures", material)
}

// serves reports whether k may verify a token with the given kid, "" for none,
// and alg.
func (k *pinnedKey) serves(kid, alg string) bool {
	return (k.id == "" || kid == "" || k.id == kid) && slices.Contains(k.algorithms, alg)
}
