package auth

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

func pemOf(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemOf(t, "PRIVATE KEY", der, err)
}

// privateJWK returns a private key as a JSON Web Key.
func privateJWK(t *testing.T, key any, kid string, alg jwkset.ALG) []byte {
	t.Helper()
	o := jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: true}, Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: alg}}
	jwk, err := jwkset.NewJWKFromKey(key, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jwk.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestSigner signs with every kind of key and file, for a verifier that has only
// the public key, and expects kid, iss and aud.
func TestSigner(t *testing.T) {
	k := newKeyring(t)
	sec1, sec1Err := x509.MarshalECPrivateKey(k.p256)
	withParameters := append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), pemOf(t, "EC PRIVATE KEY", sec1, sec1Err)...)
	for _, tt := range []struct {
		file      []byte
		algorithm string // given besides
		want      string
		material  any
	}{
		{secret, "", "HS256", secret},
		{secret, "HS512", "HS512", secret},
		{pkcs8(t, k.rsa), "", "RS256", &k.rsa.PublicKey},
		{pkcs8(t, k.rsa), "RS384", "RS384", &k.rsa.PublicKey},
		{pkcs8(t, k.rsa), "PS512", "PS512", &k.rsa.PublicKey},
		{pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa), nil), "PS256", "PS256", &k.rsa.PublicKey},
		{pkcs8(t, k.p256), "", "ES256", &k.p256.PublicKey},
		{withParameters, "", "ES256", &k.p256.PublicKey},
		{pkcs8(t, k.p384), "", "ES384", &k.p384.PublicKey},
		{pkcs8(t, k.p521), "ES512", "ES512", &k.p521.PublicKey},
		{pkcs8(t, k.ed), "", "EdDSA", k.ed.Public()},
		{privateJWK(t, k.rsa, "k1", jwkset.AlgPS384), "", "PS384", &k.rsa.PublicKey},
		{privateJWK(t, k.p384, "k1", ""), "", "ES384", &k.p384.PublicKey},
		{privateJWK(t, k.ed, "k1", jwkset.AlgEdDSA), "", "EdDSA", k.ed.Public()},
		{privateJWK(t, secret, "k1", jwkset.AlgHS384), "", "HS384", secret},
	} {
		t.Run(tt.want, func(t *testing.T) {
			key, err := ParseSigningKey(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(tt.file), "{") != (key.ID == "k1") {
				t.Errorf("kid %q", key.ID)
			}
			if tt.algorithm != "" {
				key.Algorithm = tt.algorithm
			}
			key.ID = "k1"
			s, err := NewSigner(SignerOptions{Key: key, Issuer: "https://id.example.com", Audiences: []string{"other", "rt"}})
			if err != nil {
				t.Fatal(err)
			}
			raw, err := s.Mint(someone(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			only := func(kid, issuer, audience string) *Verifier {
				return newVerifier(t, VerifierOptions{
					Keys: []Key{{ID: kid, Algorithm: tt.want, Material: tt.material}}, Issuer: issuer, Audiences: []string{audience},
				})
			}
			wantCode(t, only("k1", "https://id.example.com", "rt"), raw, accepted)
			wantCode(t, only("k2", "https://id.example.com", "rt"), raw, refused)
			wantCode(t, only("k1", "https://id.example.org", "rt"), raw, refused)
			wantCode(t, only("k1", "https://id.example.com", "rt2"), raw, refused)
		})
	}
}

// TestSign: what a verifier takes, and what it does not, is signed alike.
func TestSign(t *testing.T) {
	k := newKeyring(t)
	s, err := NewSigner(SignerOptions{Key: Key{ID: "k1", Material: k.p256}, Issuer: "https://id.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if !k.p256.PublicKey.Equal(s.Public()) {
		t.Errorf("the public key is %v", s.Public())
	}
	v := newVerifier(t, VerifierOptions{Keys: []Key{{ID: "k1", Material: s.Public()}}})
	claims := map[string]any{"sub": "u1", "tenant_id": "t_acme", "env": "dev", "exp": time.Now().Add(time.Hour).Unix()}
	for _, want := range []twinrail.Code{accepted, refused} {
		raw, err := s.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, v, raw, want)
		delete(claims, "exp")
	}
	secretly, err := NewSigner(SignerOptions{Key: Key{Material: secret}})
	if err != nil {
		t.Fatal(err)
	}
	if public := secretly.Public(); public != nil {
		t.Errorf("a secret's public key is %v", public)
	}
}

// TestSignerLeavesOut what is not given.
func TestSignerLeavesOut(t *testing.T) {
	raw, err := Mint(secret, someone(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	claims := make(jwt.MapClaims)
	token, _, err := jwt.NewParser().ParseUnverified(raw, claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iss", "aud"} {
		if v, ok := claims[name]; ok {
			t.Errorf("%s is %v", name, v)
		}
	}
	if kid, ok := token.Header["kid"]; ok {
		t.Errorf("kid is %v", kid)
	}
}

// TestSigningKeyRefuses what cannot sign, and tells nothing of it.
func TestSigningKeyRefuses(t *testing.T) {
	k := newKeyring(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, spkiErr := x509.MarshalPKIXPublicKey(&k.p256.PublicKey)
	private := pkcs8(t, k.p256)
	public := privateJWK(t, &k.rsa.PublicKey, "", "")
	scalar, err := k.p384.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for want, file := range map[string][]byte{
		"at least 32 bytes":                 secret[:31],
		"has no private key":                pemOf(t, "PUBLIC KEY", spki, spkiErr),
		"more than one private key":         append(bytes.Clone(private), private...),
		"is encrypted":                      pemOf(t, "ENCRYPTED PRIVATE KEY", []byte{48, 0}, nil),
		`a "DSA PRIVATE KEY"`:               pemOf(t, "DSA PRIVATE KEY", []byte{48, 0}, nil),
		"the PRIVATE KEY is damaged":        pemOf(t, "PRIVATE KEY", []byte{48, 0}, nil),
		"2048 to 8192 bits":                 pkcs8(t, small),
		"a *ecdh.PrivateKey is not a key":   pkcs8(t, x25519),
		"a *rsa.PublicKey is not a key":     public,
		"not a JSON Web Key":                []byte(`{"keys":[]}`),
		"see its use and key_ops":           bytes.Replace(privateJWK(t, k.ed, "", ""), []byte("{"), []byte(`{"use":"enc",`), 1),
		`algorithm "RS256" is not one of`:   bytes.Replace(privateJWK(t, k.p384, "", ""), []byte("{"), []byte(`{"alg":"RS256",`), 1),
		`algorithm "none" is not one of th`: privateJWK(t, secret, "", "none"),
	} {
		key, err := ParseSigningKey(file)
		if err == nil {
			_, err = NewSigner(SignerOptions{Key: key})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		for _, told := range []string{string(secret[:8]), base64.RawURLEncoding.EncodeToString(secret)[:8], new(big.Int).SetBytes(scalar).String()} {
			if err != nil && strings.Contains(err.Error(), told) {
				t.Errorf("%q tells of the key", err)
			}
		}
	}
}
