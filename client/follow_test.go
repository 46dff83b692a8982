package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

func TestFollowerEndsWithItsContext(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"amid a stream":      sse(hang, openBlock(cursor(0))),
		"without an answer":  nil,
		"while it backs off": problem(twinrail.CodeDraining, func(h http.Header) { h.Set("Retry-After", "600") }),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t)
				if handler != nil {
					server.handlers = []http.HandlerFunc{handler}
				}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				start := time.Now()
				_, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 2)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
					t.Errorf("ended with %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

func TestBackoffGrowsAndIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const refused, short = 12, 10
		refuse := problem(twinrail.CodeOverloaded)
		var handlers []http.HandlerFunc
		for range refused {
			handlers = append(handlers, refuse)
		}
		// Connections that are cut soon do not count as a success, one that held
		// does.
		for range short {
			handlers = append(handlers, sse(cut, openBlock(cursor(0))))
		}
		held := func(r *http.Request) { time.Sleep(31 * time.Second); cut(r) }
		handlers = append(handlers, sse(held, openBlock(cursor(0))), refuse)
		server := newFake(t, append(handlers, sse(hang, openBlock(cursor(0))))...)
		var waits []time.Duration
		c := server.client(t, func(o *Options) { o.OnRetry = func(_ error, w time.Duration) { waits = append(waits, w) } })
		if _, err := collect(c.FollowCanvas(ctx, canvas, FollowOptions{}), short+2); err != nil {
			t.Fatal(err)
		}
		distinct := map[time.Duration]bool{}
		for i, wait := range waits {
			failures := i
			if i >= refused+short {
				failures = i - refused - short
			}
			if limit := min(time.Second<<failures, 30*time.Second); wait > limit {
				t.Errorf("wait %d is %v, over %v", i, wait, limit)
			}
			distinct[wait] = true
		}
		if len(waits) != refused+short+2 || len(distinct) < len(waits)-2 {
			t.Errorf("%d waits, %d distinct: %v", len(waits), len(distinct), waits)
		}
		if longest := slices.Max(waits[refused : refused+short]); longest <= time.Second {
			t.Errorf("connections that were cut soon made the client eager: it waited %v at most", longest)
		}
	})
}

// A timeout that is meant for requests does not end a stream.
func TestFollowerIgnoresTheTimeoutOfRequests(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		late := func(w http.ResponseWriter, r *http.Request) {
			sse(func(*http.Request) {
				time.Sleep(20 * time.Second)
				_, _ = w.Write([]byte(eventBlock(1, 0)))
			}, openBlock(cursor(0)))(w, r)
		}
		server := newFake(t, late)
		c := server.client(t, func(o *Options) { o.HTTPClient.Timeout = 5 * time.Second })
		if _, err := collect(c.FollowCanvas(ctx, canvas, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		if requests, _ := server.seen(); len(requests) != 1 {
			t.Errorf("%d connections, want 1", len(requests))
		}
	})
}

func TestActionOf(t *testing.T) {
	for _, test := range []struct {
		retry  twinrail.Retry
		status int
		want   twinrail.Action
	}{
		{"", 400, twinrail.ActionStop}, {"", 401, twinrail.ActionRefresh}, {"", 403, twinrail.ActionStop},
		{"", 404, twinrail.ActionStop}, {"", 408, twinrail.ActionBackoff}, {"", 410, twinrail.ActionStop},
		{"", 425, twinrail.ActionBackoff}, {"", 429, twinrail.ActionBackoff}, {"", 500, twinrail.ActionBackoff},
		{"", 503, twinrail.ActionBackoff}, {"", 304, twinrail.ActionStop}, {"novel", 429, twinrail.ActionBackoff},
		{twinrail.RetryNever, 503, twinrail.ActionStop}, {twinrail.RetryBackoff, 400, twinrail.ActionBackoff},
		{twinrail.RetryRefresh, 403, twinrail.ActionRefresh},
	} {
		if got := actionOf(test.retry, test.status); got != test.want {
			t.Errorf("%q and %d give %s, want %s", test.retry, test.status, got, test.want)
		}
	}
}
