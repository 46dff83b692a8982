package auth

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
)

// The headers of a request's ids.
const (
	HeaderRequestID   = "X-Request-Id"
	HeaderTraceparent = "Traceparent"
)

// Credential returns the token that the request carries: in the one header
// Authorization: Bearer, or, for a WebSocket, as the subprotocol bearer.<jwt>.
// Where both are given they must be the same. A query string is not looked at:
// it ends up in logs. The error has code credential_missing or
// credential_invalid.
func Credential(r *http.Request) (string, error) {
	header, err := bearerHeader(r.Header)
	if err != nil {
		return "", err
	}
	protocol, err := bearerProtocol(r.Header)
	if err != nil {
		return "", err
	}
	switch {
	case header == "" && protocol == "":
		return "", &twinrail.Error{Code: twinrail.CodeCredentialMissing}
	case header == "":
		return protocol, nil
	case protocol != "" && protocol != header:
		return "", invalid("the header and the subprotocol carry different tokens")
	}
	return header, nil
}

func bearerHeader(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", invalid("more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", invalid("the Authorization header must be: Bearer and a token")
	}
	return token, nil
}

func bearerProtocol(h http.Header) (string, error) {
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") {
		return "", nil
	}
	token := ""
	for _, list := range h.Values("Sec-Websocket-Protocol") {
		for protocol := range strings.SplitSeq(list, ",") {
			bearer, ok := strings.CutPrefix(strings.Trim(protocol, " \t"), twinrail.BearerSubprotocol)
			switch {
			case !ok:
			case bearer == "" || token != "":
				return "", invalid("there must be one subprotocol bearer.<token>")
			default:
				token = bearer
			}
		}
	}
	return token, nil
}

// StatedRouting returns the routing keys that the request states, in headers,
// in the query, and in the path where a wildcard of its pattern has a key's
// name. They are not checked yet but for this: a malformed query is bad_request,
// a key given with no value context_invalid, and one given twice with different
// values context_conflict, with the key's name as field.
func StatedRouting(r *http.Request) (twinrail.Routing, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return twinrail.Routing{}, twinrail.Errorf(twinrail.CodeBadRequest, "query", "not well formed")
	}
	var stated twinrail.Routing
	for _, k := range twinrail.Keys() {
		sources := [][]string{r.Header.Values(k.Header()), query[k.String()]}
		if value := r.PathValue(k.String()); value != "" {
			sources = append(sources, []string{value})
		}
		for _, values := range sources {
			for _, v := range values {
				if err := state(&stated, k, v); err != nil {
					return twinrail.Routing{}, err
				}
			}
		}
	}
	return stated, nil
}

func state(stated *twinrail.Routing, k twinrail.Key, v string) error {
	switch was := stated.Get(k); {
	case v == "":
		return twinrail.Errorf(twinrail.CodeContextInvalid, k.String(), "given without a value")
	case was != "" && was != v:
		return twinrail.Errorf(twinrail.CodeContextConflict, k.String(), "given twice with different values")
	}
	stated.Set(k, v)
	return nil
}

// RequestID returns the request's id: the caller's, where there is one of 1 to
// 128 visible ASCII characters without quotes and backslashes, else a UUIDv7.
// A new one is put into the request's headers, so that every call for one
// request returns the same.
func RequestID(r *http.Request) string {
	if values := r.Header.Values(HeaderRequestID); len(values) == 1 && validRequestID(values[0]) {
		return values[0]
	}
	id := uuid.Must(uuid.NewV7()).String() // its source of randomness never fails
	r.Header.Set(HeaderRequestID, id)
	return id
}

func validRequestID(id string) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '"' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}

// Traceparent returns the request's W3C traceparent, in version 00 even where
// it came in a later one, or a new one that is not sampled. Like [RequestID] it
// returns the same at every call for one request.
func Traceparent(r *http.Request) string {
	values := r.Header.Values(HeaderTraceparent)
	if len(values) == 1 {
		if parent, ok := parseTraceparent(values[0]); ok {
			return parent
		}
	}
	var ids [24]byte
	rand.Read(ids[:]) // never fails
	parent := "00-" + hex.EncodeToString(ids[:16]) + "-" + hex.EncodeToString(ids[16:]) + "-00"
	r.Header.Set(HeaderTraceparent, parent)
	return parent
}

// parseTraceparent reads
//
//	version "-" 32 hex trace id "-" 16 hex parent id "-" 2 hex flags
//
// A version after 00 may have more behind another "-", and other flags, of
// which only the first, sampled, is known to mean the same.
func parseTraceparent(s string) (string, bool) {
	const length = 55
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return "", false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:length]
	if !lowerHex(version+trace+parent+flags) || version == "ff" || allZero(trace) || allZero(parent) {
		return "", false
	}
	if version == "00" {
		return s, len(s) == length
	}
	if len(s) > length && s[length] != '-' {
		return "", false
	}
	sampled := "00"
	if strings.IndexByte("13579bdf", flags[1]) >= 0 {
		sampled = "01"
	}
	return "00-" + trace + "-" + parent + "-" + sampled, true
}

func lowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func allZero(s string) bool { return strings.Trim(s, "0") == "" }
