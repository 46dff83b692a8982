package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"

	"github.com/twinrail/twinrail"
)

// carriage is how a credential came.
type carriage uint8

const (
	byBearer carriage = iota
	byTicket
	byCookie
)

// carried returns the credential that counts of those that the request carries,
// and how it came: a bearer or a ticket before a cookie, which browsers send
// along unasked. The error is that of [Credential]; it is credential_invalid too
// where a bearer and a ticket are given, or one of two tickets or cookies would
// have to be chosen.
func (g *Gate) carried(r *http.Request) (carriage, string, error) {
	bearer, err := Credential(r)
	missing := twinrail.CodeOf(err) == twinrail.CodeCredentialMissing
	if err != nil && !missing {
		return 0, "", err
	}
	tickets := slices.Compact(r.URL.Query()[twinrail.TicketParam])
	switch {
	case len(tickets) > 0 && !missing:
		return 0, "", invalid("a bearer and a ticket")
	case len(tickets) > 1:
		return 0, "", invalid("more than one ticket")
	case len(tickets) == 1:
		return byTicket, tickets[0], nil
	case !missing:
		return byBearer, bearer, nil
	}
	cookie, found, cookieErr := g.cookieOf(r)
	if cookieErr != nil {
		return 0, "", cookieErr
	}
	if !found {
		return 0, "", err
	}
	return byCookie, cookie, nil
}

// cookieOf returns the value of the session's cookie, and whether there is one.
func (g *Gate) cookieOf(r *http.Request) (value string, found bool, err error) {
	for _, c := range r.CookiesNamed(g.cookieName()) {
		if found && c.Value != value {
			return "", false, invalid("more than one cookie")
		}
		value, found = c.Value, true
	}
	return value, found, nil
}

var errOrigin = &twinrail.Error{Code: twinrail.CodeOriginNotAllowed}

// originAllowed reports whether the page that made the request, if any, may use
// what came by how. Browsers say of themselves whose page it was, and no page can
// change that; a page cannot make them send a bearer unless it has it.
//
// A browser names no origin with a GET from the same one. So a cookie, which it
// sends along whoever asks, takes the word of Sec-Fetch-Site then; and a ticket,
// which has to be known, no word at all.
func (g *Gate) originAllowed(r *http.Request, how carriage) bool {
	switch origins := r.Header.Values("Origin"); {
	case how == byBearer:
		return true
	case len(origins) > 0:
		return len(origins) == 1 && g.origins[origins[0]]
	case how == byTicket:
		return true
	}
	sites := r.Header.Values("Sec-Fetch-Site")
	return len(sites) == 1 && sites[0] == "same-origin"
}

// digest is the SHA-256 of a ticket's or cookie's text. Nothing else of them is
// kept; looked up by it, they give nothing away by the time that takes.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// newSecret returns a new ticket or cookie: 256 random bits, in base64url.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// actor is one actor in one tenant and env.
type actor struct{ tenant, env, id string }

func (p *Principal) actor() actor {
	return actor{p.identity.TenantID, p.identity.Env, p.identity.ActorID}
}
