package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// now is when all tokens of these tests are looked at, give or take what a test
// takes; their times are far enough from it.
var now = time.Now()

var secret = bytes.Repeat([]byte("s"), MinSecret)

// keyring holds one private key of each type. They are made once: RSA keys are
// slow to make.
type keyring struct {
	rsa, rsaOther *rsa.PrivateKey
	p256, p384    *ecdsa.PrivateKey
	p521          *ecdsa.PrivateKey
	ed            ed25519.PrivateKey
}

func newKeyring(t testing.TB) *keyring {
	t.Helper()
	var k keyring
	var errs [6]error
	k.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	k.rsaOther, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	k.p256, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, errs[3] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.p521, errs[4] = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, k.ed, errs[5] = ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return &k
}

func validClaims() jwt.MapClaims {
	return jwt.MapClaims{
		"sub": "u_42", "actor_type": "agent", "tenant_id": "t_acme", "env": "prod", "role": "viewer", "jti": "j1",
		"exp": now.Add(time.Hour).Unix(), "iat": now.Add(-time.Hour).Unix(),
		"grants": []any{map[string]any{
			"workspace_id": "w1", "project_id": "*", "app_id": "studio", "canvas_id": "c1", "panel_id": "x",
			"can": []any{"commit:read", "gesture:*"},
		}},
	}
}

// with returns c with one claim changed, or removed where value is nil.
func with(c jwt.MapClaims, name string, value any) jwt.MapClaims {
	c = maps.Clone(c)
	c[name] = value
	if value == nil {
		delete(c, name)
	}
	return c
}

// null is a claim that is there and null.
var null = json.RawMessage("null")

func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, c jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	maps.Copy(token.Header, header)
	raw, err := token.SignedString(key)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return raw
}

func signHS(t testing.TB, c jwt.Claims) string {
	return sign(t, jwt.SigningMethodHS256, secret, nil, c)
}

func newVerifier(t testing.TB, o VerifierOptions) *Verifier {
	t.Helper()
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	t.Cleanup(v.Close)
	return v
}

func secretVerifier(t testing.TB) *Verifier {
	return newVerifier(t, VerifierOptions{Keys: []Key{{Material: secret}}})
}

// wantCode fails unless Verify answers raw with code, "" for acceptance. An
// answer must tell nothing of the token.
func wantCode(t *testing.T, v *Verifier, raw string, code twinrail.Code) {
	t.Helper()
	p, err := v.Verify(context.Background(), raw)
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var e *twinrail.Error
	if !errors.As(err, &e) || e.Code != code || p != nil {
		t.Errorf("got %v, %v; want %s", p, err, code)
		return
	}
	for part := range strings.SplitSeq(raw, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part) {
			t.Errorf("the answer %q repeats a part of the token", err)
		}
	}
}

const (
	accepted = twinrail.Code("")
	refused  = twinrail.CodeCredentialInvalid
	expired  = twinrail.CodeCredentialExpired
)

func TestVerifyIdentity(t *testing.T) {
	p, err := secretVerifier(t).Verify(context.Background(), signHS(t, validClaims()))
	if err != nil {
		t.Fatal(err)
	}
	got := p.Identity()
	want := twinrail.Identity{
		ActorID: "u_42", ActorType: twinrail.Agent, TenantID: "t_acme", Env: "prod", Role: twinrail.Viewer, TokenID: "j1",
		IssuedAt: now.Add(-time.Hour).Truncate(time.Second).UTC(), ExpiresAt: now.Add(time.Hour).Truncate(time.Second).UTC(),
		Grants: []twinrail.Grant{{
			WorkspaceID: "w1", ProjectID: "*", AppID: "studio", CanvasID: "c1", PanelID: "x",
			Can: []string{"commit:read", "gesture:*"},
		}},
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !p.ExpiresAt().Equal(want.ExpiresAt) {
		t.Errorf("ExpiresAt is %v", p.ExpiresAt())
	}
}

func TestVerifyDefaults(t *testing.T) {
	c := validClaims()
	for _, name := range []string{"actor_type", "role", "jti", "iat", "grants"} {
		delete(c, name)
	}
	p, err := secretVerifier(t).Verify(context.Background(), signHS(t, c))
	if err != nil {
		t.Fatal(err)
	}
	id := p.Identity()
	if id.ActorType != twinrail.Human || id.Role != twinrail.Member || id.TokenID != "" || !id.IssuedAt.IsZero() || len(id.Grants) != 0 {
		t.Errorf("got %+v", id)
	}
}

func TestVerifyClaims(t *testing.T) {
	v := secretVerifier(t)
	second := func(d time.Duration) int64 { return now.Add(d).Unix() }
	tests := []struct {
		claim string
		value any // nil for a claim that is not there
		code  twinrail.Code
	}{
		{"exp", nil, refused},
		{"exp", null, refused},
		{"exp", second(-time.Second), expired},
		{"exp", second(0), expired},
		{"exp", 0, expired},
		{"exp", -1, refused},
		{"exp", 1e300, refused},
		{"exp", maxDate, refused},
		{"exp", maxDate - 1, accepted},
		{"exp", float64(second(time.Hour)) + .5, accepted},
		{"exp", fmt.Sprint(second(time.Hour)), refused},
		{"exp", true, refused},
		{"nbf", second(-time.Hour), accepted},
		{"nbf", second(time.Minute), refused},
		{"nbf", 1e300, refused},
		{"nbf", "0", refused},
		{"iat", second(time.Minute), accepted}, // says nothing of validity
		{"iat", -1, refused},
		{"iat", "now", refused},
		{"sub", nil, refused},
		{"sub", null, refused},
		{"sub", "", refused},
		{"sub", 42, refused},
		{"sub", "a b", refused},
		{"sub", "_a", refused},
		{"sub", "a\n", refused},
		{"sub", "auth0|42", refused},
		{"sub", strings.Repeat("a", 64), accepted},
		{"sub", strings.Repeat("a", 65), refused},
		{"actor_type", "robot", refused},
		{"actor_type", "Human", refused},
		{"actor_type", 1, refused},
		{"actor_type", "system", accepted},
		{"tenant_id", nil, refused},
		{"tenant_id", "", refused},
		{"tenant_id", "acme", refused},
		{"tenant_id", "t_", refused},
		{"tenant_id", "t_Acme", refused},
		{"tenant_id", "*", refused},
		{"tenant_id", []any{"t_acme"}, refused},
		{"env", nil, refused},
		{"env", "", refused},
		{"env", "test", refused},
		{"env", "PROD", refused},
		{"env", "*", refused},
		{"env", "dev", accepted},
		{"role", "root", refused},
		{"role", "Owner", refused},
		{"role", "owner", accepted},
		{"jti", strings.Repeat("j", maxTokenID), accepted},
		{"jti", strings.Repeat("j", maxTokenID+1), refused},
		{"jti", 7, refused},
		{"aud", []any{1}, refused},
		{"scope", "whatever", accepted},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s=%.20v", tt.claim, tt.value), func(t *testing.T) {
			wantCode(t, v, signHS(t, with(validClaims(), tt.claim, tt.value)), tt.code)
		})
	}
}

func TestVerifyIssuerAndAudience(t *testing.T) {
	v := newVerifier(t, VerifierOptions{
		Keys: []Key{{Material: secret}}, Issuer: "https://id.example", Audiences: []string{"twinrail", "other"},
	})
	good := with(with(validClaims(), "iss", "https://id.example"), "aud", "twinrail")
	tests := []struct {
		name   string
		claims jwt.MapClaims
		code   twinrail.Code
	}{
		{"both right", good, accepted},
		{"one of several", with(good, "aud", []any{"x", "other"}), accepted},
		{"no iss", with(good, "iss", nil), refused},
		{"wrong iss", with(good, "iss", "https://id.example/"), refused},
		{"iss of the wrong type", with(good, "iss", []any{"https://id.example"}), refused},
		{"no aud", with(good, "aud", nil), refused},
		{"empty aud", with(good, "aud", []any{}), refused},
		{"wrong aud", with(good, "aud", "twinrai"), refused},
		{"aud of an object", with(good, "aud", map[string]any{"twinrail": 1}), refused},
		{"wrong aud, and expired: not worth a refresh", with(with(good, "aud", "x"), "exp", 1), refused},
		{"expired", with(good, "exp", 1), expired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, v, signHS(t, tt.claims), tt.code) })
	}
}

func TestVerifyForm(t *testing.T) {
	v := secretVerifier(t)
	good := signHS(t, validClaims())
	parts := strings.Split(good, ".")
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	// resign signs any header and payload, whatever they are.
	resign := func(header, payload string) string {
		text := segment(header) + "." + segment(payload)
		signature, err := jwt.SigningMethodHS256.Sign(text, secret)
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	const header = `{"alg":"HS256"}`
	wantCode(t, v, resign(header, string(payload)), accepted)

	twoSubs := strings.Replace(string(payload), `{`, `{"sub":"u_1",`, 1)
	for name, raw := range map[string]string{
		"empty":                         "",
		"dots":                          "..",
		"two parts":                     parts[0] + "." + parts[1],
		"four parts":                    good + ".x",
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"cut signature":                 good[:len(good)-2],
		"a line break inside":           good[:20] + "\n" + good[20:],
		"a line break in the signature": good[:len(good)-5] + "\n" + good[len(good)-5:],
		"a line break behind":           good + "\r\n",
		"a space behind":                good + " ",
		"padding":                       good + "=",
		"standard base64":               strings.Replace(good, "_", "/", 1) + "/",
		"another payload":               parts[0] + "." + segment(`{"sub":"u_1"}`) + "." + parts[2],
		"header is no JSON":             resign(`{`, string(payload)),
		"header is null":                resign(`null`, string(payload)),
		"payload is null":               resign(header, `null`),
		"payload is an array":           resign(header, `[]`),
		"payload is no JSON":            resign(header, `{"sub":`),
		"something behind":              resign(header, string(payload)+`{}`),
		"a claim twice":                 resign(header, twoSubs),
		"a claim of another case":       resign(header, strings.Replace(string(payload), `"sub"`, `"Sub"`, 1)),
		"no alg":                        resign(`{"typ":"JWT"}`, string(payload)),
		"alg of another case":           resign(`{"alg":"hs256"}`, string(payload)),
		"alg is a number":               resign(`{"alg":256}`, string(payload)),
		"crit":                          resign(`{"alg":"HS256","crit":["exp"]}`, string(payload)),
		"crit that is empty":            resign(`{"alg":"HS256","crit":[]}`, string(payload)),
		"crit that is null":             resign(`{"alg":"HS256","crit":null}`, string(payload)),
		"an unencoded payload":          resign(`{"alg":"HS256","b64":false,"crit":["b64"]}`, string(payload)),
		"kid is a number":               resign(`{"alg":"HS256","kid":1}`, string(payload)),
		"kid is null":                   resign(`{"alg":"HS256","kid":null}`, string(payload)),
		"kid is empty":                  resign(`{"alg":"HS256","kid":""}`, string(payload)),
		"longer than the bound":         signHS(t, with(validClaims(), "pad", strings.Repeat("x", MaxToken))),
		"longer, and nothing of it":     strings.Repeat("a.", MaxToken),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, v, raw, refused) })
	}
}

// TestVerifySignatureBits says that no token has a second text.
func TestVerifySignatureBits(t *testing.T) {
	v := secretVerifier(t)
	good := signHS(t, validClaims())
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range alphabet {
		other := good[:len(good)-1] + alphabet[i:i+1]
		if other == good {
			continue
		}
		wantCode(t, v, other, refused)
	}
}

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

// FuzzVerify says that no text but those that were signed here is accepted.
func FuzzVerify(f *testing.F) {
	k := newKeyring(f)
	v := newVerifier(f, VerifierOptions{Keys: []Key{
		{Material: secret}, {ID: "r", Material: &k.rsa.PublicKey}, {Material: &k.p256.PublicKey}, {Material: k.ed.Public()},
	}})
	signed := map[string]bool{}
	for _, raw := range []string{
		signHS(f, validClaims()),
		sign(f, jwt.SigningMethodRS256, k.rsa, map[string]any{"kid": "r"}, validClaims()),
		sign(f, jwt.SigningMethodES256, k.p256, nil, validClaims()),
		sign(f, jwt.SigningMethodEdDSA, k.ed, nil, validClaims()),
	} {
		signed[raw] = true
		f.Add(raw)
	}
	f.Add(sign(f, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, validClaims()))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := v.Verify(context.Background(), raw)
		if (err == nil) != signed[raw] || (p == nil) != (err != nil) {
			t.Errorf("%q: %v, %v", raw, p, err)
		}
		if code := twinrail.CodeOf(err); err != nil && code != refused && code != expired {
			t.Errorf("%q: %v", raw, err)
		}
	})
}
