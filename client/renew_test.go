package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// slowTokens is a TokenSource of token-1, token-2 … that takes so long, and says
// how its context was when it was done.
func slowTokens(takes time.Duration, ends *[]error) func(*Options) {
	calls := 0
	return func(o *Options) {
		o.Token = ""
		o.TokenSource = func(ctx context.Context) (string, error) {
			calls++
			n := calls
			if n > 1 {
				select {
				case <-time.After(takes):
				case <-ctx.Done():
				}
			}
			*ends = append(*ends, ctx.Err())
			return fmt.Sprintf("token-%d", n), ctx.Err()
		}
	}
}

const expiringFrame = `{"op":"auth_expiring","expires_at":"2026-11-23T10:00:00Z"}`

func bearer(r *http.Request) string { return r.Header.Get("Authorization") }

func TestWSRenewsTheTokenWhileEventsFlow(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var auth, next, resume twinrail.ClientFrame
		var ends []error
		start := time.Now()
		server := newFake(t,
			ws(func(p peer) {
				p.joinAt(cursor(0), "j1")
				p.send(eventFrame(1, 0), expiringFrame, eventFrame(2, 1), expiringFrame, eventFrame(3, 2))
				auth = p.receive()
				time.Sleep(time.Second)
				p.send(`{"op":"ping"}`)
				next = p.receive()
				p.send(`{"op":"authed","ref":"auth","expires_at":"2026-11-23T11:00:00Z"}`, eventFrame(4, 3))
			}),
			ws(func(p peer) { resume = p.resume("r2", subAt(cursor(4))); p.hang() }),
		)
		var items []Item
		for item, err := range server.client(t, slowTokens(5*time.Second, &ends)).FollowThread(ctx, thread, FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			items = append(items, item)
			if took := time.Since(start); len(items) == 4 && took != 0 {
				t.Errorf("the third event came after %v: it waited for the token", took)
			}
			if len(items) == 6 {
				break
			}
		}
		wantEvents(t, items, 1, 2, 3, 4)
		if auth.Op != twinrail.OpAuth || auth.Token != "token-2" || next.Op != twinrail.OpPong || len(ends) != 2 {
			t.Errorf("sent %+v and %+v after %d tokens, want an auth with the second, and a pong", auth, next, len(ends))
		}
		wantResume(t, resume, "j1", cursor(4))
		requests, _ := server.seen()
		if got := bearer(requests[1]); got != "Bearer token-2" {
			t.Errorf("came back with %q, want the renewed token", got)
		}
	})
}

// What expires is the token that the connection had last, not the one that it
// began with.
func TestWSRefreshesARenewedToken(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		calls := 0
		server := newFake(t,
			ws(func(p peer) {
				p.join(cursor(0))
				p.send(expiringFrame)
				p.receive()
				p.send(`{"op":"authed","ref":"auth"}`, expiringFrame)
				p.receive()
				p.send(`{"op":"error","ref":"auth","code":"credential_invalid","retry":"refresh"}`) // is passed over
				p.send(eventFrame(1, 0))
				_ = p.Close(4300, "")
			}),
			ws(func(p peer) { p.join(cursor(1)); p.hang() }),
		)
		items, err := collect(server.client(t, tokens(&calls)).FollowThread(ctx, thread, FollowOptions{}), 3)
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, items, 1)
		requests, _ := server.seen()
		if got := bearer(requests[1]); got != "Bearer token-4" {
			t.Errorf("came back with %q after two renewals, want the fourth token", got)
		}
	})
}

func TestNothingIsSentWithoutANewToken(t *testing.T) {
	for name, source := range map[string]func(context.Context) (string, error){
		"no source":      nil,
		"the same again": func(context.Context) (string, error) { return "token-1", nil },
		"an error":       func(context.Context) (string, error) { return "", errors.New("for the test") },
	} {
		t.Run(name, func(t *testing.T) { testNothingIsSent(t, source) })
	}
}

func testNothingIsSent(t *testing.T, source func(context.Context) (string, error)) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var answer twinrail.ClientFrame
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			p.send(expiringFrame)
			time.Sleep(time.Second)
			p.send(`{"op":"ping"}`)
			answer = p.receive()
			p.send(eventFrame(1, 0))
			p.hang()
		}))
		c := server.client(t, func(o *Options) { o.TokenSource = source })
		if _, err := collect(c.FollowThread(ctx, thread, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		if answer.Op != twinrail.OpPong {
			t.Errorf("sent %+v, want a pong alone", answer)
		}
	})
}

// A source that is slow holds up neither the end of the connection nor others.
func TestARenewalEndsWithItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var ends []error
		server := newFake(t,
			ws(func(p peer) { p.join(cursor(0)); p.send(expiringFrame, eventFrame(1, 0)); time.Sleep(time.Second) }),
			ws(func(p peer) { p.join(cursor(1)); p.hang() }),
		)
		c := server.client(t, slowTokens(time.Hour, &ends))
		start := time.Now()
		if _, err := collect(c.FollowThread(ctx, thread, FollowOptions{}), 3); err != nil {
			t.Fatal(err)
		}
		requests, _ := server.seen()
		if took := time.Since(start); took > 2*time.Second || len(ends) != 2 || !errors.Is(ends[1], context.Canceled) || bearer(requests[1]) != "Bearer token-1" {
			t.Errorf("came back after %v with %q, sources ended with %v", took, bearer(requests[1]), ends)
		}
	})
}

func TestCredentialDoesNotWaitInVain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var ends []error
		c := newFake(t).client(t, slowTokens(time.Minute, &ends))
		first, _ := c.credential.get(ctx)
		renewed := make(chan string)
		go func() { token, _ := c.credential.replace(ctx, first); renewed <- token }()
		time.Sleep(time.Second) // the source is busy now
		start := time.Now()
		if token, err := c.credential.get(ctx); token != first || err != nil || time.Since(start) != 0 {
			t.Errorf("got %q and %v after %v, want the token in use at once", token, err, time.Since(start))
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if _, err := c.credential.replace(short, first); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("gave up with %v after %v", err, time.Since(start))
		}
		if second, err := c.credential.replace(ctx, first); second != "token-2" || err != nil || <-renewed != second {
			t.Errorf("got %q and %v, want the one token that was made", second, err)
		}
	})
}

const expiringBlock = "event: auth_expiring\ndata: {\"expires_at\":\"2026-11-23T10:00:00Z\"}\n\n"

// sseLater sends more blocks after a time.
func sseLater(after time.Duration, end func(*http.Request), first, later []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sse(func(r *http.Request) {
			time.Sleep(after)
			for _, b := range later {
				_, _ = w.Write([]byte(b))
				_ = http.NewResponseController(w).Flush()
			}
			end(r)
		}, first...)(w, r)
	}
}

func TestSSERenewsTheTokenWhileEventsFlow(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		end    string
		next   string // the token of the next connection
	}{
		"renewed": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"expires_at":"2026-11-23T11:00:00Z"}`))
		}, "", "token-2"},
		"a failure is no loss": {problem(twinrail.CodeUnavailable), "event: end\ndata: {\"code\":\"credential_expired\",\"reconnect\":true}\n\n", "token-3"},
		"no answer":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", "token-2"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				calls := 0
				server := newFake(t,
					sseLater(10*time.Second, cut, []string{openBlock(cursor(0)), eventBlock(1, 0), expiringBlock, eventBlock(2, 1)}, []string{eventBlock(3, 2), test.end}),
					test.answer,
					sse(hang, openBlock(cursor(3)), eventBlock(4, 3)),
				)
				items, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 6)
				if err != nil {
					t.Fatal(err)
				}
				wantEvents(t, items, 1, 2, 3, 4)
				requests, at := server.seen()
				r := requests[1]
				if r.Method != http.MethodPost || r.URL.String() != "/v1/connections/n1/auth" || bearer(r) != "Bearer token-2" ||
					r.Header.Get("X-Tenant-Id") != "t_acme" || r.Header.Get("X-Env") != "dev" || at[1] != at[0] {
					t.Errorf("sent %s %s with %v after %v", r.Method, r.URL, r.Header, at[1].Sub(at[0]))
				}
				if got := bearer(requests[2]); got != "Bearer "+test.next {
					t.Errorf("came back with %q, want %q", got, test.next)
				}
				if got := requests[2].URL.Query().Get("cursor"); got != cursor(3) {
					t.Errorf("came back to %q", got)
				}
			})
		})
	}
}

// A renewal that is not answered does not stand in the way of the next one, and
// none is sent before the connection has a name.
func TestSSERenewalGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		calls := 0
		beats := func(w http.ResponseWriter, r *http.Request) {
			sse(func(r *http.Request) {
				for _, block := range []string{":\n\n", expiringBlock, eventBlock(1, 0)} {
					time.Sleep(30 * time.Second)
					_, _ = w.Write([]byte(block))
					_ = http.NewResponseController(w).Flush()
				}
				hang(r)
			}, openBlock(cursor(0)), expiringBlock)(w, r)
		}
		never := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		server := newFake(t, beats, never)
		if _, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		if requests, _ := server.seen(); len(requests) != 3 || bearer(requests[2]) != "Bearer token-3" {
			t.Errorf("%d requests, want two renewals", len(requests))
		}
		nameless := newFake(t, sseLater(time.Second, hang, []string{expiringBlock}, []string{openBlock(cursor(0))}))
		if _, err := collect(nameless.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil {
			t.Fatal(err)
		}
		if requests, _ := nameless.seen(); len(requests) != 1 {
			t.Errorf("%d requests, want the stream's alone", len(requests))
		}
	})
}

func TestSSEGone(t *testing.T) {
	gone := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	end := "event: end\ndata: {\"code\":\"rail_disabled\",\"reconnect\":true}\n\n"
	for name, test := range map[string]struct {
		before []http.HandlerFunc
		code   twinrail.Code
	}{
		"at once":           {nil, twinrail.CodeNotFound},
		"after an end":      {[]http.HandlerFunc{sse(finish, openBlock(cursor(0)), end), problem(twinrail.CodeOverloaded)}, twinrail.CodeRailDisabled},
		"after a later cut": {[]http.HandlerFunc{sse(finish, openBlock(cursor(0)), end), sse(cut, openBlock(cursor(0)))}, twinrail.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t, append(test.before, gone)...)
				_, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 100)
				wantCode(t, err, test.code)
				if requests, _ := server.seen(); !errors.Is(err, ErrGone) || len(requests) != len(test.before)+1 {
					t.Errorf("ended with %v after %d requests", err, len(requests))
				}
			})
		})
	}
	if errors.Is(&ResponseError{Status: http.StatusNotFound, Err: &twinrail.Error{Code: twinrail.CodeNotFound}}, ErrGone) {
		t.Error("a 404 is an ErrGone")
	}
}
