package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

func TestVerifyAlgorithmIsPinnedByTheKey(t *testing.T) {
	k := newKeyring(t)
	material := map[string]any{
		"secret": secret, "RSA": &k.rsa.PublicKey, "P-256": &k.p256.PublicKey, "P-384": &k.p384.PublicKey,
		"P-521": &k.p521.PublicKey, "Ed25519": k.ed.Public(),
	}
	signers := []struct {
		method jwt.SigningMethod
		key    any
		right  string // the only key that verifies it
	}{
		{jwt.SigningMethodHS256, secret, "secret"},
		{jwt.SigningMethodHS384, secret, "secret"},
		{jwt.SigningMethodHS512, secret, "secret"},
		{jwt.SigningMethodRS256, k.rsa, "RSA"},
		{jwt.SigningMethodRS384, k.rsa, "RSA"},
		{jwt.SigningMethodRS512, k.rsa, "RSA"},
		{jwt.SigningMethodPS256, k.rsa, "RSA"},
		{jwt.SigningMethodPS384, k.rsa, "RSA"},
		{jwt.SigningMethodPS512, k.rsa, "RSA"},
		{jwt.SigningMethodES256, k.p256, "P-256"},
		{jwt.SigningMethodES384, k.p384, "P-384"},
		{jwt.SigningMethodES512, k.p521, "P-521"},
		{jwt.SigningMethodEdDSA, k.ed, "Ed25519"},
		{jwt.SigningMethodRS256, k.rsaOther, ""},
		{jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, ""},
		{mislabelled{jwt.SigningMethodHS256, "ES256"}, secret, ""},
		{mislabelled{jwt.SigningMethodRS256, "PS256"}, k.rsa, ""},
		{mislabelled{jwt.SigningMethodES256, "ES384"}, k.p256, ""},
		{mislabelled{jwt.SigningMethodES256, "RS256"}, k.p256, ""},
	}
	var all []Key
	for name, m := range material {
		all = append(all, Key{Material: m})
		v := newVerifier(t, VerifierOptions{Keys: []Key{{Material: m}}})
		for _, s := range signers {
			want := refused
			if s.right == name {
				want = accepted
			}
			t.Run(s.method.Alg()+" with "+name, func(t *testing.T) {
				wantCode(t, v, sign(t, s.method, s.key, nil, validClaims()), want)
			})
		}
	}
	v := newVerifier(t, VerifierOptions{Keys: all})
	for _, s := range signers {
		want := accepted
		if s.right == "" {
			want = refused
		}
		t.Run(s.method.Alg()+" with all", func(t *testing.T) {
			wantCode(t, v, sign(t, s.method, s.key, nil, validClaims()), want)
		})
	}
}

// mislabelled signs in one way and says that it signed in another.
type mislabelled struct {
	jwt.SigningMethod
	alg string
}

func (m mislabelled) Alg() string { return m.alg }

// TestVerifyPublicKeyAsSecret signs with what an attacker knows of a public key
// as an HMAC secret, in every form in which a careless verifier might use it.
func TestVerifyPublicKeyAsSecret(t *testing.T) {
	k := newKeyring(t)
	for name, public := range map[string]crypto.PublicKey{"RSA": k.rsa.Public(), "P-256": k.p256.Public(), "Ed25519": k.ed.Public()} {
		v := newVerifier(t, VerifierOptions{Keys: []Key{{Material: public}, {Material: secret}}})
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		for _, known := range [][]byte{text, bytes.TrimSpace(text), der, {}} {
			for _, method := range []*jwt.SigningMethodHMAC{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
				t.Run(name, func(t *testing.T) {
					wantCode(t, v, sign(t, method, known, nil, validClaims()), refused)
				})
			}
		}
	}
}

// TestVerifyKeysInTheHeader brings its own key along.
func TestVerifyKeysInTheHeader(t *testing.T) {
	k := newKeyring(t)
	v := newVerifier(t, VerifierOptions{Keys: []Key{{Material: &k.rsa.PublicKey}}})
	n := base64.RawURLEncoding.EncodeToString(k.rsaOther.N.Bytes())
	header := map[string]any{
		"jwk": map[string]any{"kty": "RSA", "n": n, "e": "AQAB"},
		"jku": "http://127.0.0.1:1/jwks.json", "x5u": "http://127.0.0.1:1/x.pem", "x5c": []any{"AAAA"},
	}
	wantCode(t, v, sign(t, jwt.SigningMethodRS256, k.rsaOther, header, validClaims()), refused)
	wantCode(t, v, sign(t, jwt.SigningMethodRS256, k.rsa, header, validClaims()), accepted)
}

func TestVerifyKeyIDs(t *testing.T) {
	k := newKeyring(t)
	named := func(kid string) map[string]any { return map[string]any{"kid": kid} }
	v := newVerifier(t, VerifierOptions{Keys: []Key{
		{ID: "a", Material: &k.rsa.PublicKey},
		{ID: "b", Material: &k.rsaOther.PublicKey, Algorithm: "PS256"},
		{Material: secret},
	}})
	tests := []struct {
		name   string
		method jwt.SigningMethod
		key    any
		header map[string]any
		code   twinrail.Code
	}{
		{"the key that it names", jwt.SigningMethodRS256, k.rsa, named("a"), accepted},
		{"no kid", jwt.SigningMethodRS256, k.rsa, nil, accepted},
		{"the other key's kid", jwt.SigningMethodRS256, k.rsa, named("b"), refused},
		{"a kid that nobody has", jwt.SigningMethodRS256, k.rsa, named("c"), refused},
		{"kid of another case", jwt.SigningMethodRS256, k.rsa, named("A"), refused},
		{"kid as a path", jwt.SigningMethodRS256, k.rsa, named("../../a"), refused},
		{"the algorithm left to b", jwt.SigningMethodPS256, k.rsaOther, named("b"), accepted},
		{"one not left to b", jwt.SigningMethodRS256, k.rsaOther, named("b"), refused},
		{"one not left to b, no kid", jwt.SigningMethodRS256, k.rsaOther, nil, refused},
		{"a key without an ID takes any kid", jwt.SigningMethodHS256, secret, named("c"), accepted},
		{"a secret under a public key's kid", jwt.SigningMethodHS256, k.rsa.N.Bytes(), named("a"), refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantCode(t, v, sign(t, tt.method, tt.key, tt.header, validClaims()), tt.code)
		})
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]VerifierOptions{
		"no key and no JWKS":              {},
		"at least 32 bytes, this one has": {Keys: []Key{{Material: secret}, {Material: secret[:31]}}},
		"key 2":                           {Keys: []Key{{Material: secret}, {Material: []byte{}}}},
		"not a key that verifies":         {Keys: []Key{{Material: "a secret of a type that is too easily mixed up"}}},
		"<nil>":                           {Keys: []Key{{}}},
		"2048 to 8192 bits":               {Keys: []Key{{Material: &weak.PublicKey}}},
		"*rsa.PrivateKey":                 {Keys: []Key{{Material: weak}}},
		"P-256, P-384 or P-521":           {Keys: []Key{{Material: &p224.PublicKey}}},
		"32 bytes, this one has":          {Keys: []Key{{Material: ed25519.PublicKey{1}}}},
		`algorithm "RS256"`:               {Keys: []Key{{Material: secret, Algorithm: "RS256"}}},
		`algorithm "none"`:                {Keys: []Key{{Material: secret, Algorithm: "none"}}},
		"name of an env":                  {Keys: []Key{{Material: secret}}, Envs: []string{"dev", "a b"}},
		"keys.json\" is not an http":      {JWKS: []string{"file:///etc/keys.json"}},
		`"https:" is not an http`:         {JWKS: []string{"https://"}},
		"user:xxxxx@":                     {JWKS: []string{"ftp://user:pass@host/"}},
	} {
		v, err := NewVerifier(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v; want an error with %q", o, v, err, want)
		}
	}
}

func TestParsePublicKeys(t *testing.T) {
	k := newKeyring(t)
	block := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkix := func(public any) string {
		der, err := x509.MarshalPKIXPublicKey(public)
		return block("PUBLIC KEY", der, err)
	}
	template := &x509.Certificate{NotAfter: now.Add(time.Hour), SerialNumber: big.NewInt(7)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, k.p384.Public(), k.p384)
	text := pkix(k.rsa.Public()) + pkix(k.p256.Public()) + "a comment\n" + pkix(k.ed.Public()) +
		block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey), nil) + block("CERTIFICATE", certificate, err)
	keys, err := ParsePublicKeys([]byte(text))
	if err != nil || len(keys) != 5 {
		t.Fatalf("got %d keys, %v", len(keys), err)
	}
	v := newVerifier(t, VerifierOptions{Keys: keys})
	wantCode(t, v, sign(t, jwt.SigningMethodPS256, k.rsa, nil, validClaims()), accepted)
	wantCode(t, v, sign(t, jwt.SigningMethodES256, k.p256, nil, validClaims()), accepted)
	wantCode(t, v, sign(t, jwt.SigningMethodES384, k.p384, nil, validClaims()), accepted)
	wantCode(t, v, sign(t, jwt.SigningMethodEdDSA, k.ed, nil, validClaims()), accepted)

	private, err := x509.MarshalPKCS8PrivateKey(k.ed)
	for want, text := range map[string]string{
		"no PEM block":               "ssh-ed25519 AAAA",
		`is a "PRIVATE KEY"`:         block("PRIVATE KEY", private, err),
		"PEM block 2":                pkix(k.ed.Public()) + block("PUBLIC KEY", []byte("no DER"), nil),
		"PEM block 1: x509: malform": block("CERTIFICATE", []byte("no DER"), nil),
	} {
		if _, err := ParsePublicKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
