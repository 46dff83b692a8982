package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// plainClaims is a payload that is accepted, to be spoiled.
const plainClaims = `{"sub":"u_1","tenant_id":"t_acme","env":"dev","exp":4000000000,"iat":1,"nbf":1,"jti":"j",` +
	`"role":"member","actor_type":"human","iss":"i","aud":"a","grants":[{"workspace_id":"w","can":["*"]}]}`

// TestClaimOfEachType gives each claim a value of each type that JSON has.
func TestClaimOfEachType(t *testing.T) {
	v := secretVerifier(t)
	if err := checkClaims(t, v, plainClaims); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"null": "null", "true": "true", "zero": "0", "negative": "-1", "fraction": "0.5", "huge": "1e308", "too huge": "1e309",
		"long": "4" + strings.Repeat("0", 400), "empty": `""`, "text": `"x"`, "number in text": `"4000000000"`, "NUL": `"u\u0000"`,
		"half a pair": `"\ud800"`, "list": `["dev"]`, "nested list": `[["dev"]]`, "object": `{"can":["*"]}`, "empty list": `[]`,
		"deep": strings.Repeat("[", 2000) + strings.Repeat("]", 2000), "nothing": "", "comment": "/**/1", "NaN": "NaN", "plus": "+1",
	}
	texts := []string{"null", "empty", "text", "NUL", "number in text"}
	right := map[string][]string{ // what is let through besides
		"sub": {"text", "number in text"}, "jti": texts, "iss": texts, "aud": append(texts, "list", "empty list"), "grants": {"null", "empty list"},
		"role": {"null", "empty"}, "actor_type": {"null", "empty"}, "nbf": {"null", "zero", "fraction"}, "iat": {"null", "zero", "fraction"},
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(plainClaims), &members); err != nil {
		t.Fatal(err)
	}
	for claim, good := range members {
		for name, value := range values {
			payload := strings.Replace(plainClaims, `"`+claim+`":`+string(good), `"`+claim+`":`+value, 1)
			err := checkClaims(t, v, payload)
			if (err == nil) != slices.Contains(right[claim], name) {
				t.Errorf("%s of %s: %v", claim, name, err)
			}
		}
	}
}

// TestClaimTwice gives each claim, and each member of a grant, twice, in either
// order, and with one of the names spelled in escapes.
func TestClaimTwice(t *testing.T) {
	v := secretVerifier(t)
	for claim, values := range map[string][2]string{
		"sub": {`"u_1"`, `"u_2"`}, "tenant_id": {`"t_acme"`, `"t_other"`}, "env": {`"dev"`, `"prod"`}, "exp": {`4000000000`, `4000000001`},
		"iat": {`1`, `2`}, "nbf": {`1`, `2`}, "jti": {`"j"`, `"k"`}, "role": {`"member"`, `"owner"`}, "actor_type": {`"human"`, `"system"`},
		"iss": {`"i"`, `"k"`}, "aud": {`"a"`, `["b"]`}, "grants": {`[{"workspace_id":"w","can":["*"]}]`, `[]`},
		"workspace_id": {`"w"`, `"*"`}, "can": {`["*"]`, `["commit:read"]`},
	} {
		name, escaped := `"`+claim+`":`, fmt.Sprintf(`"\u%04x%s":`, claim[0], claim[1:])
		once := name + values[0]
		if !strings.Contains(plainClaims, once) {
			t.Fatalf("no %s in %s", once, plainClaims)
		}
		for _, again := range []string{once, name + values[1], name + "null", escaped + values[0], escaped + values[1]} {
			for _, both := range []string{once + "," + again, again + "," + once} {
				payload := strings.Replace(plainClaims, once, both, 1)
				if err := checkClaims(t, v, payload); err == nil {
					t.Errorf("accepted: %s", payload)
				}
			}
		}
	}
}

// TestNestedToken has a token in the place of, or within, the payload.
func TestNestedToken(t *testing.T) {
	v := secretVerifier(t)
	inner := forge(t, plainHeader, plainClaims)
	wantCode(t, v, inner, accepted)
	segment := base64.RawURLEncoding.EncodeToString
	for name, raw := range map[string]string{
		"as the payload":          forge(t, `{"alg":"HS256","cty":"JWT"}`, inner),
		"as a string":             forge(t, `{"alg":"HS256","cty":"JWT"}`, `"`+inner+`"`),
		"in an object":            forge(t, plainHeader, `{"jwt":"`+inner+`"}`),
		"as the header":           forge(t, inner, plainClaims),
		"in front":                inner + "." + inner,
		"as the signature":        segment([]byte(plainHeader)) + "." + segment([]byte(plainClaims)) + "." + inner,
		"as encrypted, five":      inner + ".AA.AA",
		"its payload, no signing": segment([]byte(`{"alg":"none"}`)) + "." + segment([]byte(plainClaims)) + ".",
		"deep in the header":      forge(t, `{"alg":"HS256","x":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`}`, plainClaims),
		"deep within bounds":      forge(t, `{"alg":["HS256"],"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`}`, plainClaims),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, v, raw, refused) })
	}
}

// TestHeaderOddities signs with the right key and says odd things in the header.
func TestHeaderOddities(t *testing.T) {
	named := newVerifier(t, VerifierOptions{Keys: []Key{{ID: "k1", Material: secret, Algorithm: "HS256"}}})
	wantCode(t, named, forge(t, `{"alg":"HS256","kid":"k1","typ":"at+jwt","cty":"x"}`, plainClaims), accepted)
	for _, kid := range []string{
		`"K1"`, `"k1 "`, `"k1\u0000"`, `"k1\u0000.pem"`, `"../k1"`, `"/dev/null"`, `"..\\..\\k1"`, `"file:///dev/null"`, `"http://127.0.0.1:1/k1"`,
		`"' OR '1'='1"`, `"k1'; DROP TABLE keys;--"`, `"x' UNION SELECT 'AA'--"`, `"k1|id"`, `"$(id)"`, `"{{k1}}"`, `"%6b1"`, `"\u200bk1"`, `"\uff4b1"`,
		`"` + strings.Repeat("k", 4000) + `"`, `"*"`, `""`, `null`, `1`, `true`, `["k1"]`, `{"k1":1}`, `"\ud800"`,
	} {
		wantCode(t, named, forge(t, `{"alg":"HS256","kid":`+kid+`}`, plainClaims), refused)
	}
	for _, header := range []string{
		`{"alg":"none","kid":"k1"}`, `{"alg":"None","kid":"k1"}`, `{"alg":"NONE"}`, `{"alg":"nOnE"}`, `{"alg":""}`, `{"alg":null}`, `{"ALG":"HS256"}`,
		`{"alg":"HS256 "}`, `{"alg":"hs256"}`, `{"alg":"HS257"}`, `{"alg":"HS384"}`, `{"alg":"RS256"}`, `{"alg":"HS256\u0000"}`, `{"alg":["HS256"]}`,
		`{"alg":"dir","enc":"A256GCM"}`, `{"alg":"PBES2-HS256+A128KW","p2c":2147483647}`,
		`{"alg":"HS256","crit":["kid"],"kid":"k1"}`, `{"alg":"HS256","crit":"x"}`, `{"alg":"HS256","b64":false,"crit":["b64"]}`,
		`{"alg":"HS256","\u0063rit":["x"]}`, `["HS256"]`, `"HS256"`, ``, "\ufeff" + `{"alg":"HS256"}`,
	} {
		wantCode(t, named, forge(t, header, plainClaims), refused)
	}
	// No alg at all comes down to the bytes of a signature: there is none to try.
	for _, signature := range []string{"", "AA", base64.RawURLEncoding.EncodeToString(make([]byte, 32))} {
		parts := strings.Split(forge(t, `{"alg":"none"}`, plainClaims), ".")
		wantCode(t, named, parts[0]+"."+parts[1]+"."+signature, refused)
	}
}

// TestKeysBroughtAlong has an attacker sign with a key of each type and bring it
// along in every way that a header has, real ones: nobody takes it, and nobody
// goes and fetches it.
func TestKeysBroughtAlong(t *testing.T) {
	ours, theirs := newKeyring(t), newKeyring(t)
	var fetched atomic.Int32
	attacker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	t.Cleanup(attacker.Close)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[%s]}`, jwkOf(t, &ours.rsa.PublicKey, "k1"))
	}))
	t.Cleanup(issuer.Close)
	for verifier, o := range map[string]VerifierOptions{
		"fixed keys": {Keys: []Key{{ID: "k1", Material: &ours.rsa.PublicKey}, {Material: &ours.p256.PublicKey}, {Material: ours.ed.Public()}}},
		"a key set":  {JWKS: []string{issuer.URL}},
	} {
		v := newVerifier(t, o)
		wantCode(t, v, sign(t, jwt.SigningMethodRS256, ours.rsa, map[string]any{"kid": "k1"}, validClaims()), accepted)
		for _, k := range []struct {
			method  jwt.SigningMethod
			private crypto.Signer
		}{
			{jwt.SigningMethodRS256, theirs.rsa}, {jwt.SigningMethodPS512, theirs.rsa}, {jwt.SigningMethodES256, theirs.p256}, {jwt.SigningMethodEdDSA, theirs.ed},
		} {
			jwk := jwkOf(t, k.private.Public(), "k1")
			for name, header := range map[string]map[string]any{
				"jwk": {"jwk": jwk}, "jwk and kid": {"jwk": jwk, "kid": "k1"}, "x5c": {"x5c": []string{certificateOf(t, k.private)}},
				"jku": {"jku": attacker.URL, "kid": "k1"}, "x5u": {"x5u": attacker.URL}, "kid as a URL": {"kid": attacker.URL},
				"jku like the issuer's": {"jku": issuer.URL + "@" + strings.TrimPrefix(attacker.URL, "http://"), "kid": "new"},
			} {
				t.Run(verifier+" "+k.method.Alg()+" "+name, func(t *testing.T) {
					wantCode(t, v, sign(t, k.method, k.private, header, validClaims()), refused)
				})
			}
		}
		// The public key of a set is no secret, in whatever form.
		for _, known := range [][]byte{[]byte(jwkOf(t, &ours.rsa.PublicKey, "k1")), ours.rsa.N.Bytes(), x509.MarshalPKCS1PublicKey(&ours.rsa.PublicKey)} {
			wantCode(t, v, sign(t, jwt.SigningMethodHS256, known, map[string]any{"kid": "k1"}, validClaims()), refused)
		}
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("the attacker's address was fetched %d times", n)
	}
}

// jwkOf writes a public key as a JWK.
func jwkOf(t *testing.T, public crypto.PublicKey, kid string) json.RawMessage {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString
	m := map[string]string{"kid": kid, "use": "sig"}
	switch k := public.(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", text(k.N.Bytes()), text(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, x, y
		if err != nil {
			t.Fatal(err)
		}
		m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", text(point[1:33]), text(point[33:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", text(k)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// certificateOf returns a certificate that the key has signed for itself.
func certificateOf(t *testing.T, private crypto.Signer) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "i"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// TestTicketAltered changes each character of a ticket, cuts it everywhere and adds
// to it: none of them lets in, and none uses it up.
func TestTicketAltered(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	ticket := ticketFor(t, g, c, twinrail.TicketRequest{})
	digest := digestOf(ticket)
	altered := []string{"", ticket + "A", ticket + "=", " " + ticket, ticket + "\x00", ticket + ticket, string(digest[:]), strings.ToUpper(ticket)}
	for i := range ticket {
		altered = append(altered, ticket[:i], ticket[i+1:])
		for _, with := range []string{"A", "_", "=", "+", "\x00"} {
			if other := ticket[:i] + with + ticket[i+1:]; other != ticket {
				altered = append(altered, other)
			}
		}
	}
	for _, other := range altered {
		r := request(inDev)
		r.URL.RawQuery += "&ticket=" + url.QueryEscape(other)
		_, err := g.Admit(r)
		wantError(t, err, refused, "")
	}
	if _, err := withTicket(g, ticket); err != nil {
		t.Error(err)
	}
}

// TestResumeSpliced puts the parts of resume tokens together that were sealed for
// others, and for the same in another session; and asks for each as each.
func TestResumeSpliced(t *testing.T) {
	g := newGate(t, GateOptions{})
	all := []*Context{
		withBearer(t, g), withBearer(t, g, actorIs("u_2")), withBearer(t, g, tenantIs("t_other")), withBearer(t, g, envIs("prod")),
		withBearer(t, g, tenantIs("t_acme_dev"), actorIs("1")),
	}
	var tokens []string
	for _, c := range all {
		tokens = append(tokens, g.SealResume(c, Resume{SessionID: "s_1"}), g.SealResume(c, Resume{SessionID: "s_2", Uses: 1}))
	}
	for owner, c := range all {
		for i, one := range tokens {
			_, err := g.OpenResume(c, one)
			want := twinrail.CodeResumeInvalid
			if i/2 == owner {
				want = ""
			}
			wantError(t, err, want, "")
			for j, other := range tokens {
				a, b := strings.Split(one, "."), strings.Split(other, ".")
				spliced := a[0] + "." + a[1] + "." + b[2]
				if i == j {
					spliced = one + "." + b[2]
				}
				_, err := g.OpenResume(c, spliced)
				wantError(t, err, twinrail.CodeResumeInvalid, "")
			}
			for n := range one {
				if _, err := g.OpenResume(c, one[:n]); twinrail.CodeOf(err) != twinrail.CodeResumeInvalid {
					t.Fatalf("the first %d of %d: %v", n, len(one), err)
				}
			}
		}
	}
}
