package auth

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// jwk returns the JWK of a key, changed by members; a nil member is removed.
func jwk(t testing.TB, key any, kid string, members map[string]any) string {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{
		Marshal:  jwkset.JWKMarshalOptions{Private: true},
		Metadata: jwkset.JWKMetadataOptions{KID: kid},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		m[name] = value
		if value == nil {
			delete(m, name)
		}
	}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fresh returns claims that are valid on the clock of a bubble too.
func fresh() jwt.MapClaims {
	return with(with(validClaims(), "exp", time.Now().Add(24*time.Hour).Unix()), "iat", nil)
}

func kidToken(t testing.TB, key crypto.Signer, kid string) string {
	t.Helper()
	return sign(t, jwt.SigningMethodRS256, key, map[string]any{"kid": kid}, fresh())
}

const unavailable = twinrail.CodeUnavailable

// TestDefaultTransportIsAnother: a program may have put something else in its place.
func TestDefaultTransportIsAnother(t *testing.T) {
	k := newKeyring(t)
	e := &endpoint{}
	e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
	server := httptest.NewServer(e)
	defer server.Close()
	was := http.DefaultTransport
	defer func() { http.DefaultTransport = was }()
	http.DefaultTransport = struct{ http.RoundTripper }{was}
	v := newVerifier(t, VerifierOptions{JWKS: []string{server.URL}})
	wantCode(t, v, kidToken(t, k.rsa, "a"), accepted)
	if own := defaultJWKSClient().Transport.(*http.Transport); own.Proxy == nil || own.DialContext == nil || own.TLSHandshakeTimeout == 0 {
		t.Error("it goes through no proxy, or waits for ever")
	}
}

// TestJWKSRotates uses a real endpoint on loopback.
func TestJWKSRotates(t *testing.T) {
	k := newKeyring(t)
	e := &endpoint{}
	e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
	server := httptest.NewServer(e)
	defer server.Close()
	v := newVerifier(t, VerifierOptions{JWKS: []string{server.URL + "/jwks.json"}, JWKSCooldown: 1})
	tokenA, tokenB := kidToken(t, k.rsa, "a"), kidToken(t, k.rsaOther, "b")

	wantCode(t, v, tokenA, accepted)
	wantCode(t, v, tokenB, refused)

	e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil), jwk(t, k.rsaOther.Public(), "b", nil))
	wantCode(t, v, tokenB, accepted)
	wantCode(t, v, tokenA, accepted)
	before := e.count()
	wantCode(t, v, tokenB, accepted)
	if e.count() != before {
		t.Error("a known key was fetched again")
	}

	e.serveKeys(t, jwk(t, k.rsaOther.Public(), "b", nil))
	wantCode(t, v, kidToken(t, k.rsa, "c"), refused) // an unknown kid: the set is fetched
	wantCode(t, v, tokenA, refused)
	wantCode(t, v, tokenB, accepted)

	server.Close()
	wantCode(t, v, tokenB, accepted)
	wantCode(t, v, tokenA, unavailable)
}

func TestJWKSIsFetchedFromTimeToTime(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
		v := newVerifier(t, VerifierOptions{JWKS: []string{"http://id.example/"}, JWKSClient: e.inBubble(t), JWKSRefresh: time.Hour})
		token := kidToken(t, k.rsa, "a")
		wantCode(t, v, token, accepted)

		e.serveKeys(t, jwk(t, k.rsaOther.Public(), "b", nil))
		time.Sleep(time.Hour - time.Second)
		wantCode(t, v, token, accepted)
		time.Sleep(2 * time.Second)
		wantCode(t, v, token, refused)
		wantCode(t, v, kidToken(t, k.rsaOther, "b"), accepted)
		if n := e.count(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestJWKSGoesDown(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
		v := newVerifier(t, VerifierOptions{
			JWKS: []string{"http://id.example/"}, JWKSClient: e.inBubble(t), JWKSRefresh: time.Hour, JWKSCooldown: time.Minute,
		})
		known, unknown := kidToken(t, k.rsa, "a"), kidToken(t, k.rsaOther, "b")
		wantCode(t, v, known, accepted)

		e.set(http.StatusBadGateway, "down")
		for range 20 {
			time.Sleep(time.Hour)
			wantCode(t, v, known, accepted)
			wantCode(t, v, unknown, unavailable)
			wantCode(t, v, sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, fresh()), refused)
			wantCode(t, v, signHS(t, fresh()), refused)
		}

		e.serveKeys(t, jwk(t, k.rsaOther.Public(), "b", nil))
		time.Sleep(time.Minute + time.Second) // nobody asks: the retry finds it
		wantCode(t, v, known, refused)
		wantCode(t, v, unknown, accepted)
	})
}

// TestJWKSNeverReached starts while the endpoint takes connections and says
// nothing.
func TestJWKSNeverReached(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
		e.setDelay(24 * time.Hour)
		client := e.inBubble(t)
		start := time.Now()
		v := newVerifier(t, VerifierOptions{
			Keys: []Key{{Material: secret}}, JWKS: []string{"http://id.example/"}, JWKSClient: client,
			JWKSTimeout: 5 * time.Second, JWKSCooldown: 10 * time.Second,
		})
		if d := time.Since(start); d != 0 {
			t.Errorf("the start took %v", d)
		}
		token := kidToken(t, k.rsa, "a")

		wantCode(t, v, signHS(t, fresh()), accepted) // a fixed key needs no set
		if d := time.Since(start); d != 0 {
			t.Errorf("a token of a fixed key took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.Verify(ctx, token); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that ended: %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("it took %v", d)
		}
		wantCode(t, v, token, unavailable)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("the first fetch took %v", d)
		}
		wantCode(t, v, token, unavailable)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("an answer within the cooldown took until %v", d)
		}
		e.setDelay(0)
		time.Sleep(11 * time.Second)
		wantCode(t, v, token, accepted)
	})
}

// TestJWKSFlood sends tokens with kids that nobody has, at a slow endpoint too.
func TestJWKSFlood(t *testing.T) {
	k := newKeyring(t)
	for _, delay := range []time.Duration{0, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{}
			e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
			e.setDelay(delay)
			v := newVerifier(t, VerifierOptions{
				JWKS: []string{"http://id.example/"}, JWKSClient: e.inBubble(t), JWKSRefresh: time.Hour, JWKSCooldown: 10 * time.Second,
			})
			known := kidToken(t, k.rsa, "a")
			wantCode(t, v, known, accepted)
			token := sign(t, jwt.SigningMethodEdDSA, k.ed, map[string]any{"kid": "nobody's"}, fresh())
			var group sync.WaitGroup
			for range 10 {
				group.Go(func() {
					for range 600 {
						wantCode(t, v, token, refused)
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			time.Sleep(30*time.Second + time.Millisecond)
			start := time.Now()
			wantCode(t, v, known, accepted)
			if d := time.Since(start); d != 0 {
				t.Errorf("a known key waited %v for the flood", d)
			}
			group.Wait()
			// A minute of flood, stretched by its waits at the slow endpoint.
			if n := e.count(); n < 6 || n > 8 {
				t.Errorf("%d fetches", n)
			}
		})
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestJWKSGarbageChangesNothing(t *testing.T) {
	k := newKeyring(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	other := jwk(t, k.rsaOther.Public(), "b", nil)
	tests := []struct {
		name   string
		status int
		body   string
	}{
		{"nothing", 200, ""},
		{"HTML", 200, "<html>Welcome to the hotel's Wi-Fi</html>"},
		{"null", 200, "null"},
		{"a list", 200, "[" + other + "]"},
		{"an object", 200, "{}"},
		{"null keys", 200, `{"keys":null}`},
		{"keys that are an object", 200, `{"keys":{}}`},
		{"a cut document", 200, `{"keys":[` + other},
		{"something behind it", 200, `{"keys":[` + other + `]}{}`},
		{"too large", 200, `{"keys":[` + other + `]}` + strings.Repeat(" ", maxSetBytes)},
		{"too many keys", 200, `{"keys":[` + other + strings.Repeat(","+other, maxSetKeys) + `]}`},
		{"only keys of no use", 200, `{"keys":[1,"x",{},` + jwk(t, &weak.PublicKey, "b", nil) + `]}`},
		{"an error with keys", 500, `{"keys":[` + other + `]}`},
		{"no content", 204, ""},
		{"a redirect", 302, `{"keys":[` + other + `]}`},
	}
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
		var log lockedBuffer
		v := newVerifier(t, VerifierOptions{
			JWKS: []string{"http://name:hidden@id.example/"}, JWKSClient: e.inBubble(t), JWKSCooldown: time.Second,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		known, unknown := kidToken(t, k.rsa, "a"), kidToken(t, k.rsaOther, "b")
		wantCode(t, v, known, accepted)
		for _, tt := range tests {
			e.set(tt.status, tt.body)
			time.Sleep(2 * time.Second)
			t.Log(tt.name)
			wantCode(t, v, unknown, unavailable)
			wantCode(t, v, known, accepted)
		}
		e.set(200, `{"keys":[]}`)
		time.Sleep(2 * time.Second)
		wantCode(t, v, unknown, refused)
		wantCode(t, v, known, refused) // an empty set trusts nobody
		if s := log.String(); strings.Count(s, "id.example") < len(tests) || strings.Contains(s, "hidden") {
			t.Errorf("logged %q", s)
		}
	})
}

func TestJWKSAfterClose(t *testing.T) {
	k := newKeyring(t)
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.serveKeys(t, jwk(t, k.rsa.Public(), "a", nil))
		v, err := NewVerifier(VerifierOptions{JWKS: []string{"http://id.example/"}, JWKSClient: e.inBubble(t)})
		if err != nil {
			t.Fatal(err)
		}
		known := kidToken(t, k.rsa, "a")
		wantCode(t, v, known, accepted)
		time.Sleep(time.Minute)
		e.setDelay(time.Hour)
		done := make(chan struct{})
		go func() {
			defer close(done)
			wantCode(t, v, kidToken(t, k.rsa, "b"), unavailable)
		}()
		synctest.Wait() // a fetch is under way
		start := time.Now()
		v.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		select {
		case <-v.sets[0].ended:
		default:
			t.Error("Close left a goroutine behind")
		}
		<-done
		wantCode(t, v, known, accepted)
		time.Sleep(time.Minute)
		wantCode(t, v, kidToken(t, k.rsa, "b"), unavailable)
	})
}

// TestJWKSKeys says which keys of a set verify what.
func TestJWKSKeys(t *testing.T) {
	k := newKeyring(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rs, ps, es := jwt.SigningMethodRS256, jwt.SigningMethodPS256, jwt.SigningMethodES256
	tests := []struct {
		name    string
		served  any // what the set gives away, a private key too
		members map[string]any
		method  jwt.SigningMethod
		key     any
		kid     any // of the token, which names the key "a" where this is nil
		code    twinrail.Code
	}{
		{"RSA", k.rsa.Public(), nil, rs, k.rsa, nil, accepted},
		{"RSA, PSS", k.rsa.Public(), nil, ps, k.rsa, nil, accepted},
		{"P-256", k.p256.Public(), nil, es, k.p256, nil, accepted},
		{"P-384", k.p384.Public(), nil, jwt.SigningMethodES384, k.p384, nil, accepted},
		{"P-521", k.p521.Public(), nil, jwt.SigningMethodES512, k.p521, nil, accepted},
		{"Ed25519 with alg", k.ed.Public(), nil, jwt.SigningMethodEdDSA, k.ed, nil, accepted},
		{"Ed25519 without alg", k.ed.Public(), map[string]any{"alg": nil}, jwt.SigningMethodEdDSA, k.ed, nil, accepted},
		{"use sig", k.rsa.Public(), map[string]any{"use": "sig"}, rs, k.rsa, nil, accepted},
		{"use enc", k.rsa.Public(), map[string]any{"use": "enc"}, rs, k.rsa, nil, refused},
		{"use unknown", k.rsa.Public(), map[string]any{"use": "SIG"}, rs, k.rsa, nil, refused},
		{"key_ops verify", k.rsa.Public(), map[string]any{"key_ops": []string{"verify"}}, rs, k.rsa, nil, accepted},
		{"key_ops sign", k.rsa.Public(), map[string]any{"key_ops": []string{"sign"}}, rs, k.rsa, nil, refused},
		{"key_ops encrypt", k.rsa.Public(), map[string]any{"key_ops": []string{"encrypt", "wrapKey"}}, rs, k.rsa, nil, refused},
		{"its alg", k.rsa.Public(), map[string]any{"alg": "PS256"}, ps, k.rsa, nil, accepted},
		{"not its alg", k.rsa.Public(), map[string]any{"alg": "PS256"}, rs, k.rsa, nil, refused},
		{"an alg of another type", k.rsa.Public(), map[string]any{"alg": "ES256"}, rs, k.rsa, nil, refused},
		{"an alg that encrypts", k.rsa.Public(), map[string]any{"alg": "RSA-OAEP"}, rs, k.rsa, nil, refused},
		{"alg HS256 with a public key", k.rsa.Public(), map[string]any{"alg": "HS256"}, jwt.SigningMethodHS256, k.rsa.N.Bytes(), nil, refused},
		{"alg none", k.rsa.Public(), map[string]any{"alg": "none"}, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, refused},
		{"a weak key", &weak.PublicKey, nil, rs, weak, nil, refused},
		{"a private key given away is public", k.rsa, nil, rs, k.rsa, nil, accepted},
		{"a private EC key given away is public", k.p256, nil, es, k.p256, nil, accepted},
		{"a private Ed25519 key given away is public", k.ed, nil, jwt.SigningMethodEdDSA, k.ed, nil, accepted},
		{"a secret", secret, nil, jwt.SigningMethodHS256, secret, nil, refused},
		{"a secret with alg", secret, map[string]any{"alg": "HS256"}, jwt.SigningMethodHS256, secret, nil, refused},
		{"a point off the curve", k.p256.Public(), map[string]any{"x": "AAAA"}, es, k.p256, nil, refused},
		{"the wrong curve", k.p256.Public(), map[string]any{"crv": "P-384"}, es, k.p256, nil, refused},
		{"the wrong type", k.p256.Public(), map[string]any{"kty": "RSA"}, es, k.p256, nil, refused},
		{"another kid", k.rsa.Public(), nil, rs, k.rsa, "b", refused},
		{"no kid in the token", k.rsa.Public(), nil, rs, k.rsa, "", accepted},
		{"no kid in the key", k.rsa.Public(), map[string]any{"kid": nil}, rs, k.rsa, nil, refused},
		{"no kid in either", k.rsa.Public(), map[string]any{"kid": nil}, rs, k.rsa, "", accepted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{}
				good := jwk(t, k.rsaOther.Public(), "good", nil) // a bad key does not spoil it
				e.serveKeys(t, jwk(t, tt.served, "a", tt.members), good)
				v := newVerifier(t, VerifierOptions{JWKS: []string{"http://id.example/"}, JWKSClient: e.inBubble(t)})
				header := map[string]any{"kid": "a"}
				if tt.kid == "" {
					header = nil
				} else if tt.kid != nil {
					header["kid"] = tt.kid
				}
				wantCode(t, v, sign(t, tt.method, tt.key, header, fresh()), tt.code)
				wantCode(t, v, kidToken(t, k.rsaOther, "good"), accepted)
			})
		})
	}
}
