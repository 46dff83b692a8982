package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// FuzzVerify says that no text but those that were signed here is accepted.
func FuzzVerify(f *testing.F) {
	k := newKeyring(f)
	// Each worker is a process of its own. It is given the seeds of the first
	// one, which with a secret that all share it would have to accept.
	own := make([]byte, MinSecret)
	rand.Read(own)
	v := newVerifier(f, VerifierOptions{Keys: []Key{
		{Material: own}, {ID: "r", Material: &k.rsa.PublicKey}, {Material: &k.p256.PublicKey}, {Material: k.ed.Public()},
	}})
	signed := map[string]bool{}
	for _, raw := range []string{
		sign(f, jwt.SigningMethodHS256, own, nil, validClaims()),
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
