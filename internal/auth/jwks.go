package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

// The bounds of a key set: the document in bytes, and its keys.
const (
	maxSetBytes = 512 << 10
	maxSetKeys  = 64
)

var (
	errSetClosed = errors.New("auth: the verifier is closed")
	errNeverSeen = errors.New("auth: the key set has not been fetched yet")
)

// remoteSet is a JSON Web Key Set at a URL. One goroutine fetches it, from time
// to time and when somebody misses a key. The keys of the last fetch that
// succeeded stay while later ones fail.
type remoteSet struct {
	// fixed
	url      string
	client   *http.Client
	interval time.Duration
	cooldown time.Duration
	timeout  time.Duration
	log      *slog.Logger

	missed chan struct{} // holds one token: fetch, if the cooldown is over
	ended  chan struct{} // closed when run has ended

	mu      sync.Mutex
	keys    []pinnedKey   // replaced, never changed
	err     error         // of the last fetch
	last    time.Time     // when the last fetch ended, zero before the first
	fetched chan struct{} // closed when the fetch under way, or else the next one, ends
}

// newRemoteSet returns the set at address; o has its defaults.
func newRemoteSet(address string, o VerifierOptions) (*remoteSet, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("%q is not an https or http URL", u.Redacted())
	}
	return &remoteSet{
		url: address, client: o.JWKSClient, log: o.Logger.With("jwks", u.Redacted()),
		interval: o.JWKSRefresh, cooldown: o.JWKSCooldown, timeout: o.JWKSTimeout,
		missed:  make(chan struct{}, 1),
		ended:   make(chan struct{}),
		err:     errNeverSeen,
		fetched: make(chan struct{}),
	}, nil
}

// dialTimeout bounds each step to a connection: that goes on when the fetch which it
// was for has been given up.
const dialTimeout = 10 * time.Second

// defaultJWKSClient follows no redirects, which could lead from https to http,
// and keeps no connection for the minutes between two fetches. It takes nothing from
// [http.DefaultTransport], which may be anything.
func defaultJWKSClient() *http.Client {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableKeepAlives:   true,
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// run fetches until ctx ends.
func (s *remoteSet) run(ctx context.Context) {
	defer close(s.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.missed:
			if s.cooling() {
				continue
			}
		}
		if s.fetch(ctx) == nil {
			timer.Reset(s.interval)
		} else {
			timer.Reset(s.cooldown)
		}
	}
}

func (s *remoteSet) cooling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isCooling()
}

func (s *remoteSet) isCooling() bool { return !s.last.IsZero() && time.Since(s.last) < s.cooldown }

// cached returns the keys as of now. The caller must not change them.
func (s *remoteSet) cached() []pinnedKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

// refresh waits for the fetch that is under way, or asks for one unless the
// last is too recent. It returns the error of the last fetch.
func (s *remoteSet) refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.isCooling() {
		defer s.mu.Unlock()
		return s.err
	}
	fetched := s.fetched
	s.mu.Unlock()

	select {
	case s.missed <- struct{}{}:
	default: // it has been asked for
	}
	select {
	case <-fetched:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return errSetClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fetch takes over the set as it is at its URL.
func (s *remoteSet) fetch(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	keys, err := s.download(bounded)
	cancel()
	if err != nil && ctx.Err() == nil {
		s.log.Error("cannot fetch the keys that verify credentials; those known before stay", "error", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys = keys
	}
	s.err, s.last = err, time.Now()
	close(s.fetched)
	s.fetched = make(chan struct{})
	return err
}

func (s *remoteSet) download(ctx context.Context) ([]pinnedKey, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxSetBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxSetBytes)
	}
	return parseSet(body)
}

// parseSet returns the keys of a JWK Set that verify signatures. It leaves out
// those that do not, and fails where the document is no JWK Set or none of its
// keys can be used: a broken endpoint must not take the good keys away. An
// empty set is one, and trusts nobody.
func parseSet(body []byte) ([]pinnedKey, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, fmt.Errorf("not a JWK Set: %w", err)
	}
	if document.Keys == nil {
		return nil, errors.New("not a JWK Set: it has no keys")
	}
	if len(document.Keys) > maxSetKeys {
		return nil, fmt.Errorf("more than %d keys", maxSetKeys)
	}
	var keys []pinnedKey
	var last error
	for _, raw := range document.Keys {
		k, err := parseJWK(raw)
		if err != nil {
			last = err
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 && last != nil {
		return nil, fmt.Errorf("none of its %d keys can be used; the last: %w", len(document.Keys), last)
	}
	return keys, nil
}

func parseJWK(raw json.RawMessage) (pinnedKey, error) {
	// Without private material the library gives public keys only, even where
	// the set gives a private key away, and no symmetric ones.
	jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return pinnedKey{}, err
	}
	m := jwk.Marshal()
	if m.USE != "" && m.USE != jwkset.UseSig {
		return pinnedKey{}, fmt.Errorf("use is %q", m.USE)
	}
	if len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return pinnedKey{}, fmt.Errorf("key_ops are %q", m.KEYOPS)
	}
	return pin(Key{ID: m.KID, Algorithm: string(m.ALG), Material: jwk.Key()})
}
