package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
)

// Options is what a [Client] is made of. The zero value of a field means its
// default, where the comment names one.
type Options struct {
	// URL is the server's, such as https://rt.example.com, with a path only
	// where the server lives under one. Required; http or https.
	URL string
	// Token is the credential, a JWT. Required unless TokenSource is set.
	Token string
	// TokenSource makes credentials. It is called before the first request,
	// again each time the server says that the last one is about to expire, which
	// renews a follower's connection in place, and each time it is no longer good.
	// It returns one that is good now, and returns when ctx ends. Calls do not
	// overlap.
	TokenSource func(ctx context.Context) (string, error)
	// HTTPClient sends the requests. Its Timeout does not apply to followers.
	// Default a client of its own, whose connections [Client.Close] closes.
	HTTPClient *http.Client
	// Backoff says how long a follower waits before it comes back.
	Backoff Backoff
	// Silence is how long a follower waits for a sign of life from the server
	// before it cuts the connection: two heartbeats and a margin. On the WS
	// rail it counts only until the server has told its heartbeat. Default 40 s,
	// which fits the server's default heartbeat of 15 s.
	Silence time.Duration
	// MaxMessage bounds what the client takes in one piece, in bytes: one SSE
	// event, one WebSocket message, one page of history or other response. A page
	// ends with the event that takes it over 4 MiB: leave room for that and the
	// largest event that the server takes. Default 16 MiB.
	MaxMessage int
	// OnRetry, where set, is told why a follower lost its connection and how
	// long it waits before it comes back. It runs in the follower's loop.
	OnRetry func(cause error, wait time.Duration)
}

const (
	defaultSilence    = 40 * time.Second
	defaultMaxMessage = 16 << 20
)

// Client speaks to one server as one actor. Its methods may be called
// concurrently.
type Client struct {
	// fixed
	base       *url.URL
	http       *http.Client // for requests that end
	stream     *http.Client // without a timeout, for those that do not
	ownsHTTP   bool
	backoff    Backoff
	silence    time.Duration
	maxMessage int
	onRetry    func(error, time.Duration)

	credential credential
}

// New returns a Client. It sends nothing yet.
func New(o Options) (*Client, error) {
	base, err := parseBase(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Token == "" && o.TokenSource == nil {
		return nil, errors.New("client: Options need a Token or a TokenSource")
	}
	c := &Client{
		base:       base,
		http:       o.HTTPClient,
		backoff:    o.Backoff.withDefaults(),
		silence:    o.Silence,
		maxMessage: o.MaxMessage,
		onRetry:    o.OnRetry,
		credential: credential{token: o.Token, source: o.TokenSource, turn: make(chan struct{}, 1)},
	}
	if c.http == nil {
		c.http, c.ownsHTTP = newHTTPClient(), true
	}
	stream := *c.http
	stream.Timeout = 0
	c.stream = &stream
	if c.silence <= 0 {
		c.silence = defaultSilence
	}
	if c.maxMessage <= 0 {
		c.maxMessage = defaultMaxMessage
	}
	if c.onRetry == nil {
		c.onRetry = func(error, time.Duration) {}
	}
	return c, nil
}

// Close lets go of idle connections where the client made its own HTTP client.
// Followers end with their contexts.
func (c *Client) Close() {
	if c.ownsHTTP {
		c.http.CloseIdleConnections()
	}
}

// newHTTPClient returns a client that pings its HTTP/2 connections: without
// that, one whose network is gone stays in the pool, and a follower that was cut
// for its silence comes back to the same dead connection.
func newHTTPClient() *http.Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok { // the application may have replaced it
		transport = standard.Clone()
	}
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
	return &http.Client{Transport: transport}
}

func parseBase(s string) (*url.URL, error) {
	base, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("client: the URL cannot be read: %w", err)
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("client: the URL must begin with http:// or https://, not as in %q", s)
	case base.Host == "":
		return nil, fmt.Errorf("client: the URL names no host: %q", s)
	case base.RawQuery != "" || base.Fragment != "" || base.User != nil:
		return nil, errors.New("client: the URL must hold no user, query or fragment")
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	return base, nil
}

// endpoint returns the URL of path under the server's.
func (c *Client) endpoint(path string, query url.Values) string {
	u := *c.base
	u.Path += path
	u.RawQuery = query.Encode()
	return u.String()
}

// header returns the headers that every request carries: the credential, and
// the context that the request acts in.
func header(token string, routing twinrail.Routing) http.Header {
	h := http.Header{"Authorization": {"Bearer " + token}}
	for _, k := range twinrail.Keys() {
		if v := routing.Get(k); v != "" {
			h.Set(k.Header(), v)
		}
	}
	return h
}

// credential is the token in use.
type credential struct {
	source func(context.Context) (string, error)
	turn   chan struct{} // of one token, held while source runs

	mu    sync.Mutex
	token string
}

var errNoSource = errors.New("client: there is no TokenSource to get another credential from")

// get returns the token in use, the first time from the source.
func (c *credential) get(ctx context.Context) (string, error) {
	return c.replace(ctx, "")
}

// replace returns a token other than the rejected one: the one in use, or else
// what the source gives.
func (c *credential) replace(ctx context.Context, rejected string) (string, error) {
	if token := c.current(); token != "" && token != rejected {
		return token, nil
	}
	if c.source == nil {
		return "", errNoSource
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if token := c.current(); token != "" && token != rejected {
		return token, nil // of who had the turn before
	}
	token, err := c.source(ctx)
	if err != nil {
		return "", fmt.Errorf("client: the TokenSource failed: %w", err)
	}
	if token == "" {
		return "", errors.New("client: the TokenSource returned no token")
	}
	c.mu.Lock()
	c.token = token
	c.mu.Unlock()
	return token, nil
}

func (c *credential) current() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}
