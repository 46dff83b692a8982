package probe

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// forgery is a token that says whose it is like a good one, and is not good.
type forgery struct {
	what, token string
	code        twinrail.Code // of the refusal
}

// forge returns forgeries of p's token, and one that was made like these, but is
// good: without keys it is p's own.
func (w *world) forge(p *party) (good string, all []forgery, err error) {
	part := strings.Split(p.token, ".") // which are three
	header, claims := make(map[string]any), make(map[string]any)
	if err := errors.Join(decodePart(part[0], header), decodePart(part[1], claims)); err != nil {
		return "", nil, err
	}
	const invalid = twinrail.CodeCredentialInvalid
	all = []forgery{
		{"that has another signature", altered(p.token), invalid},
		{"that has no signature", part[0] + "." + part[1] + ".", invalid},
		{"that has the algorithm none", withAlgorithm(header, "none") + "." + part[1] + ".", invalid},
	}
	own, ok := w.tokens.(*minted)
	if !ok {
		w.note("tokens that are signed and not good: needs signing keys")
		return p.token, all, nil
	}
	key := own.keyOf(p.routing.TenantID)
	for form, text := range spellings(key.Public()) {
		unsigned := withAlgorithm(header, "HS256") + "." + part[1]
		mac := hmac.New(sha256.New, text)
		mac.Write([]byte(unsigned))
		all = append(all, forgery{"whose secret is the public key in " + form, unsigned + "." + encodePart(mac.Sum(nil)), invalid})
	}
	flawed, err := signedFlaws(key, claims)
	if err != nil {
		return "", nil, err
	}
	good, err = key.Sign(claims)
	return good, append(all, flawed...), err
}

// signedFlaws returns tokens that say something else than the claims in one thing,
// and are signed.
func signedFlaws(key *auth.Signer, claims map[string]any) (all []forgery, err error) {
	now := time.Now()
	for _, flaw := range []struct {
		what, claim string
		value       any  // nil is none
		checked     bool // only by a server that expects the claim, as it does where a good token has it
		code        twinrail.Code
	}{
		{"that is over", "exp", now.Add(-time.Hour).Unix(), false, twinrail.CodeCredentialExpired},
		{"that is never over", "exp", nil, false, twinrail.CodeCredentialInvalid},
		{"that is not good yet", "nbf", now.Add(time.Hour).Unix(), false, twinrail.CodeCredentialInvalid},
		{"of another issuer", "iss", "https://" + random() + ".invalid", true, twinrail.CodeCredentialInvalid},
		{"for another audience", "aud", []string{random()}, true, twinrail.CodeCredentialInvalid},
	} {
		if flaw.checked && claims[flaw.claim] == nil {
			continue
		}
		says := maps.Clone(claims)
		if says[flaw.claim] = flaw.value; flaw.value == nil {
			delete(says, flaw.claim)
		}
		token, err := key.Sign(says)
		if err != nil {
			return nil, err
		}
		all = append(all, forgery{flaw.what, token, flaw.code})
	}
	return all, nil
}

// spellings returns the texts of a public key that a server could have and take for
// a secret.
func spellings(key crypto.PublicKey) map[string][]byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil // there is no public key
	}
	return map[string][]byte{"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "DER": der}
}

func decodePart(part string, into map[string]any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &into)
}

func encodePart(text []byte) string { return base64.RawURLEncoding.EncodeToString(text) }

// withAlgorithm returns the header of a token with another algorithm.
func withAlgorithm(header map[string]any, algorithm string) string {
	header = maps.Clone(header)
	header["alg"] = algorithm
	text, _ := json.Marshal(header) // which came as JSON
	return encodePart(text)
}

// altered returns a token whose signature, after its last dot, is another one.
func altered(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	first := "A"
	if strings.HasPrefix(token[at:], first) {
		first = "B"
	}
	return token[:at] + first + token[min(at+1, len(token)):]
}

// withToken returns c with another token in place of the party's.
func withToken(c call, token string) call {
	c.anonymous, c.header = true, c.header.Clone()
	if c.header == nil {
		c.header = make(http.Header)
	}
	c.header.Set("Authorization", "Bearer "+token)
	return c
}

// forged has the wrong one come with forgeries of the right one's token. Each must
// be refused, like where there is nothing. Open is the call of a party that opens
// what is at an address.
func (w *world) forged(ctx context.Context, s *scene, open func(p *party, at twinrail.Routing) call) error {
	good, all, err := w.forge(s.right)
	if err != nil {
		return err
	}
	at, nowhere := s.right.routing, w.nowhere(s.right.routing)
	a, err := s.right.ask(ctx, withToken(open(s.right, at), good))
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("the right one comes with a token like those that are forged: %s", a)
	}
	if err != nil {
		return err
	}
	for _, f := range all {
		got, err := s.wrong.ask(ctx, withToken(open(s.wrong, at), f.token))
		if err != nil {
			return err
		}
		absent, err := s.wrong.ask(ctx, withToken(open(s.wrong, nowhere), f.token))
		if err != nil {
			return err
		}
		if err := w.refused(s.wrong.name+" comes with a token of the right one's "+f.what, got, absent, f.code); err != nil {
			return err
		}
	}
	return nil
}

// forgedRenewal has the wrong one renew its WebSocket with forgeries of the right
// one's token. Each must be refused.
func (w *world) forgedRenewal(ctx context.Context, s *scene) error {
	good, _, err := w.forge(s.wrong)
	if err != nil {
		return err
	}
	_, all, err := w.forge(s.right)
	if err != nil {
		return err
	}
	c, err := s.wrong.mustDial(ctx)
	if err != nil {
		return err
	}
	if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: good}); err != nil {
		return fmt.Errorf("%s renews with a token like those that are forged: %w", s.wrong.name, err)
	}
	for _, f := range all {
		got, err := c.ask(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: f.token})
		if err != nil {
			return err
		}
		if err := w.refused(s.wrong.name+" renews with a token of the right one's "+f.what, got.asAnswer(), nil, f.code); err != nil {
			return err
		}
	}
	return nil
}
