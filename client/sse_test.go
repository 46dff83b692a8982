package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// sse answers with an event stream of the given blocks, and then does as end says.
func sse(end func(*http.Request), blocks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		for _, b := range blocks {
			_, _ = w.Write([]byte(b))
			_ = http.NewResponseController(w).Flush()
		}
		end(r)
	}
}

func cut(*http.Request)    { panic(http.ErrAbortHandler) }
func hang(r *http.Request) { <-r.Context().Done() }
func finish(*http.Request) {}

func openBlock(cursor string) string {
	return fmt.Sprintf("event: open\ndata: {\"connection_id\":\"n1\",\"cursor\":%q,\"head\":%q,\"resumed\":true}\n\n", cursor, cursor)
}

func eventBlock(seq, prev int) string {
	return fmt.Sprintf("id: %s\nevent: commit\ndata: %s\n\n", cursor(seq), eventJSON(twinrail.Commit, seq, prev))
}

func liveBlock(seq int) string {
	return fmt.Sprintf("event: live\ndata: {\"cursor\":%q}\n\n", cursor(seq))
}

const resetBlock = "id: cursor-90\nevent: reset\ndata: {\"reason\":\"cursor_expired\",\"requested\":\"cursor-2\",\"oldest\":\"cursor-80\",\"head\":\"cursor-90\"}\n\n"

const openVoid = "event: open\ndata: {\"connection_id\":\"n1\",\"cursor\":\"cursor-90\",\"head\":\"cursor-90\",\"resumed\":false,\"reason\":\"cursor_expired\"}\n\n"

func TestSSEAsksForWhatItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, sse(hang, openBlock(cursor(0))))
		routing := canvas
		routing.PanelID = "panel1"
		_, err := collect(server.client(t).FollowCanvas(ctx, routing, FollowOptions{
			Channels: []twinrail.Channel{twinrail.Commit, twinrail.Gesture}, From: twinrail.CursorEarliest,
		}), 1)
		if err != nil {
			t.Fatal(err)
		}
		requests, _ := server.seen()
		r := requests[0]
		if got, want := r.URL.String(), "/v1/sse/canvases/c1?channels=commit%2Cgesture&cursor=earliest"; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
		for name, want := range map[string]string{
			"Authorization": "Bearer token-1", "Accept": "text/event-stream", "X-Tenant-Id": "t_acme", "X-Env": "dev",
			"X-Workspace-Id": "w1", "X-Project-Id": "p1", "X-App-Id": "studio", "X-Canvas-Id": "c1", "X-Panel-Id": "panel1", "X-Thread-Id": "",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("header %s is %q, want %q", name, got, want)
			}
		}
	})
}

func TestSSEResumesAfterCuts(t *testing.T) {
	half := eventBlock(4, 3)[:60]
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t,
			sse(cut, "retry: 2500\n\n", openBlock(cursor(0)), eventBlock(1, 0), eventBlock(2, 1)), // between events
			sse(cut, openBlock(cursor(2)), eventBlock(3, 2), half),                                // amid an event
			sse(finish, openBlock(cursor(3)), eventBlock(4, 3), liveBlock(4)),                     // a clean end is a cut too
			sse(hang, openBlock(cursor(4)), eventBlock(5, 4)),
		)
		items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 10)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := events(items), []uint64{1, 2, 3, 4, 5}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		if got, want := string(items[1].Raw), eventJSON(twinrail.Commit, 1, 0); got != want {
			t.Errorf("the raw event is %s, want %s", got, want)
		}
		requests, at := server.seen()
		for i, want := range []string{"", "cursor-2", "cursor-3", "cursor-4"} {
			if got := requests[i].URL.Query().Get("cursor"); got != want {
				t.Errorf("connection %d started at %q, want %q", i, got, want)
			}
			if i > 0 {
				// The server asked for 2.5 s; the jitter is on top of that.
				if gap, most := at[i].Sub(at[i-1]), 2500*time.Millisecond+time.Second<<(i-1); gap < 2500*time.Millisecond || gap > most {
					t.Errorf("came back after %v, want 2.5 s to %v", gap, most)
				}
			}
		}
	})
}

func TestSSEIDWithoutDataMovesTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t,
			sse(cut, openBlock(cursor(0)), eventBlock(1, 0), ": hb\nid: cursor-7\n\n", "id: cursor-8"),
			sse(hang, openBlock(cursor(7))),
		)
		if _, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 3); err != nil {
			t.Fatal(err)
		}
		requests, _ := server.seen()
		if got := requests[1].URL.Query().Get("cursor"); got != "cursor-7" {
			t.Errorf("came back to %q, want cursor-7", got)
		}
	})
}

func TestSSEGivesResets(t *testing.T) {
	for name, first := range map[string][]string{
		"at the start":  {openVoid, resetBlock},
		"in the middle": {openBlock(cursor(2)), eventBlock(3, 2), resetBlock},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				// After the reset the log may be another one, with lower seqs.
				server := newFake(t, sse(cut, first...), sse(hang, openBlock("cursor-90"), eventBlock(1, 0)))
				items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{From: cursor(2)}), len(first)+2)
				if err != nil {
					t.Fatal(err)
				}
				reset := items[len(first)-1]
				want := twinrail.Reset{Reason: twinrail.CodeCursorExpired, Requested: cursor(2), Oldest: "cursor-80", Head: "cursor-90"}
				if reset.Kind != KindReset || *reset.Reset != want || reset.Cursor != "cursor-90" {
					t.Errorf("the reset is %+v %+v", reset, reset.Reset)
				}
				requests, _ := server.seen()
				if got := requests[1].URL.Query().Get("cursor"); got != "cursor-90" {
					t.Errorf("came back to %q, want cursor-90", got)
				}
			})
		})
	}
}

// A cut between "open", which says that the cursor is void, and "reset" must not
// lose the reset.
func TestSSECutBeforeResetKeepsTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, sse(cut, openVoid), sse(hang, openVoid, resetBlock))
		items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{From: cursor(2)}), 3)
		if err != nil {
			t.Fatal(err)
		}
		requests, _ := server.seen()
		if got := requests[1].URL.Query().Get("cursor"); got != cursor(2) {
			t.Errorf("came back to %q, want the void cursor", got)
		}
		if items[2].Kind != KindReset {
			t.Errorf("item 2 is %+v, want the reset", items[2])
		}
	})
}

func TestSSEFailOnReset(t *testing.T) {
	t.Run("410", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, problem(twinrail.CodeCursorExpired))
			items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{From: cursor(2), FailOnReset: true}), 1)
			wantCode(t, err, twinrail.CodeCursorExpired)
			requests, _ := server.seen()
			if len(items) != 0 || len(requests) != 1 || requests[0].URL.Query().Get("on_reset") != "fail" {
				t.Errorf("%d items, %d requests, the first is %s", len(items), len(requests), requests[0].URL)
			}
		})
	})
	t.Run("in the middle", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, sse(hang, openBlock(cursor(2)), resetBlock))
			items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{From: cursor(2), FailOnReset: true}), 2)
			wantCode(t, err, twinrail.CodeCursorExpired)
			if len(items) != 1 {
				t.Errorf("%d items, want the open alone", len(items))
			}
		})
	})
}

// tokens is a TokenSource that counts.
func tokens(calls *int) func(*Options) {
	return func(o *Options) {
		o.Token = ""
		o.TokenSource = func(context.Context) (string, error) {
			*calls++
			return fmt.Sprintf("token-%d", *calls), nil
		}
	}
}

func TestSSERefreshesTheCredentialOnce(t *testing.T) {
	t.Run("and goes on", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			calls := 0
			server := newFake(t,
				problem(twinrail.CodeCredentialExpired),
				sse(cut, openBlock(cursor(0)), "event: end\ndata: {\"code\":\"credential_expired\",\"reconnect\":true}\n\n"),
				problem(twinrail.CodeCredentialInvalid), // the token is stale once more, after it has worked
				sse(hang, openBlock(cursor(0))),
			)
			if _, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil {
				t.Fatal(err)
			}
			requests, at := server.seen()
			if got := requests[1].Header.Get("Authorization"); got != "Bearer token-2" {
				t.Errorf("came back with %q, want the second token", got)
			}
			if at[1] != at[0] {
				t.Errorf("the new token was tried after %v, want at once", at[1].Sub(at[0]))
			}
		})
	})
	t.Run("and no more", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			calls := 0
			server := newFake(t, problem(twinrail.CodeCredentialInvalid), problem(twinrail.CodeCredentialInvalid))
			_, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 1)
			wantCode(t, err, twinrail.CodeCredentialInvalid)
			if calls != 2 {
				t.Errorf("%d tokens were asked for, want 2", calls)
			}
		})
	})
	t.Run("but again after it has worked", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			calls := 0
			ended := sse(finish, openBlock(cursor(0)), "event: end\ndata: {\"code\":\"credential_expired\",\"reconnect\":true}\n\n")
			server := newFake(t, ended, ended, ended, sse(hang, openBlock(cursor(0))))
			if _, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 4); err != nil {
				t.Fatal(err)
			}
			if calls != 4 {
				t.Errorf("%d tokens were asked for, want 4", calls)
			}
		})
	})
	t.Run("but again after an outage", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			calls := 0
			server := newFake(t,
				problem(twinrail.CodeCredentialExpired),
				problem(twinrail.CodeUnavailable),       // so long that the new token,
				problem(twinrail.CodeCredentialExpired), // which has not opened anything, expires too
				sse(hang, openBlock(cursor(0))),
			)
			if _, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil {
				t.Fatal(err)
			}
			if calls != 3 {
				t.Errorf("%d tokens were asked for, want 3", calls)
			}
		})
	})
	t.Run("not without a source", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, problem(twinrail.CodeCredentialInvalid))
			_, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 1)
			wantCode(t, err, twinrail.CodeCredentialInvalid)
		})
	})
	t.Run("not a revoked one", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			calls := 0
			server := newFake(t, problem(twinrail.CodeCredentialRevoked))
			_, err := collect(server.client(t, tokens(&calls)).FollowCanvas(ctx, canvas, FollowOptions{}), 1)
			wantCode(t, err, twinrail.CodeCredentialRevoked)
			if calls != 1 {
				t.Errorf("%d tokens were asked for, want 1", calls)
			}
		})
	})
}

func TestSSEStops(t *testing.T) {
	noContent := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	plain404 := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nginx", http.StatusNotFound) }
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		code    twinrail.Code
		status  int
	}{
		"400":        {problem(twinrail.CodeContextInvalid), twinrail.CodeContextInvalid, 400},
		"403":        {problem(twinrail.CodeRailDisabled), twinrail.CodeRailDisabled, 403},
		"404":        {problem(twinrail.CodeNotFound), twinrail.CodeNotFound, 404},
		"a proxy":    {plain404, twinrail.CodeNotFound, 404},
		"204":        {noContent, twinrail.CodeNotFound, 204},
		"end":        {sse(hang, openBlock(cursor(0)), "event: end\ndata: {\"code\":\"credential_revoked\",\"reconnect\":false}\n\n"), twinrail.CodeCredentialRevoked, 0},
		"too long":   {sse(hang, openBlock(cursor(0)), "event: commit\ndata: "+strings.Repeat("x", 1<<16)), twinrail.CodeTooLarge, 0},
		"no request": {nil, twinrail.CodeWrongRail, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t, test.handler)
				options := FollowOptions{}
				if test.handler == nil {
					options.Channels = []twinrail.Channel{twinrail.Chat}
				}
				c := server.client(t, func(o *Options) { o.MaxMessage = 1 << 14 })
				_, err := collect(c.FollowCanvas(ctx, canvas, options), 100)
				wantCode(t, err, test.code)
				var response *ResponseError
				if errors.As(err, &response) != (test.code != twinrail.CodeTooLarge && test.handler != nil) {
					t.Errorf("the error is a %T", err)
				} else if response != nil && response.Status != test.status {
					t.Errorf("status %d, want %d", response.Status, test.status)
				}
				if requests, _ := server.seen(); len(requests) > 1 {
					t.Errorf("%d requests", len(requests))
				}
			})
		})
	}
	t.Run("another server", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
			_, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 1)
			if err == nil || !strings.Contains(err.Error(), "text/html") {
				t.Errorf("the error is %v", err)
			}
		})
	})
}

func TestSSEWaitsAsLongAsTheServerAsks(t *testing.T) {
	after := func(s string) func(http.Header) { return func(h http.Header) { h.Set("Retry-After", s) } }
	bubble(t, func(t *testing.T, ctx context.Context) {
		date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
		server := newFake(t,
			problem(twinrail.CodeDraining, after("7")),
			problem(twinrail.CodeRateLimited, after("20")),
			problem(twinrail.CodeOverloaded, after(date)),
			problem(twinrail.CodeInternal, after("never")),
			sse(hang, openBlock(cursor(0))),
		)
		if _, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil {
			t.Fatal(err)
		}
		_, at := server.seen()
		for i, floor := range []time.Duration{7, 20, 0, 0} {
			floor *= time.Second
			if i == 2 {
				floor = 90*time.Second - at[2].Sub(at[0]) // a date has whole seconds
			}
			gap, most := at[i+1].Sub(at[i]), floor+time.Second<<i
			if gap < floor-time.Second || (i != 2 && gap < floor) || gap > most {
				t.Errorf("wait %d took %v, want %v to %v", i, gap, floor, most)
			}
		}
	})
}

func TestSSECutsASilentConnection(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		beat := func(r *http.Request, w http.ResponseWriter) {
			for range 10 { // 150 s of comments alone
				time.Sleep(15 * time.Second)
				_, _ = w.Write([]byte(":\n\n"))
				_ = http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
		}
		server := newFake(t,
			func(w http.ResponseWriter, r *http.Request) {
				sse(func(r *http.Request) { beat(r, w) }, openBlock(cursor(0)))(w, r)
			},
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, // not even a status
			sse(hang, openBlock(cursor(0))),
		)
		var causes []error
		c := server.client(t, func(o *Options) { o.OnRetry = func(err error, _ time.Duration) { causes = append(causes, err) } })
		if _, err := collect(c.FollowCanvas(ctx, canvas, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		_, at := server.seen()
		if gap := at[1].Sub(at[0]); gap < 190*time.Second || gap > 191*time.Second {
			t.Errorf("cut after %v, want 150 s + 40 s and up to 1 s of back-off", gap)
		}
		if gap := at[2].Sub(at[1]); gap < 40*time.Second || gap > 42*time.Second {
			t.Errorf("gave up on a status after %v, want 40 s and up to 2 s of back-off", gap)
		}
		for _, cause := range causes {
			if !errors.Is(cause, errSilent) {
				t.Errorf("the cause is %v", cause)
			}
		}
	})
}

// A refusal whose body never comes is a silent server too. Its status says enough.
func TestSSECutsASilentRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		stall := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"title":"the server`))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
		server := newFake(t, stall, sse(hang, openBlock(cursor(0))))
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if _, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil {
			t.Fatal(err)
		}
		_, at := server.seen()
		if gap := at[1].Sub(at[0]); gap < 40*time.Second || gap > 41*time.Second {
			t.Errorf("came back after %v, want 40 s and up to 1 s of back-off", gap)
		}
	})
}

func TestSSEASlowCallerIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, sse(hang, openBlock(cursor(0)), eventBlock(1, 0), eventBlock(2, 1)))
		n := 0
		for _, err := range server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if n++; n == 3 {
				break
			}
		}
		if requests, _ := server.seen(); len(requests) != 1 {
			t.Errorf("%d connections, want 1", len(requests))
		}
	})
}

func TestSSEChecksTheChain(t *testing.T) {
	for name, test := range map[string]struct {
		blocks []string
		ok     bool
	}{
		"again":             {[]string{eventBlock(5, 4), eventBlock(5, 4)}, false},
		"older":             {[]string{eventBlock(5, 4), eventBlock(3, 2)}, false},
		"another past":      {[]string{eventBlock(5, 4), eventBlock(9, 3)}, false},
		"its own past":      {[]string{eventBlock(5, 5)}, false},
		"some were others'": {[]string{eventBlock(5, 4), eventBlock(9, 8)}, true},
		"seqs with holes":   {[]string{eventBlock(5, 2), eventBlock(9, 5)}, true},
		"after a reset":     {[]string{eventBlock(5, 4), resetBlock, eventBlock(5, 4)}, true},
	} {
		for _, across := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/across connections %v", name, across), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					blocks := append([]string{openBlock(cursor(0))}, test.blocks...)
					server := newFake(t, sse(hang, blocks...))
					want := len(blocks)
					if across {
						last := len(blocks) - 1
						server.handlers = []http.HandlerFunc{sse(cut, blocks[:last]...), sse(hang, openBlock(cursor(0)), blocks[last])}
						want++
					}
					_, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), want)
					var chain *ChainError
					if errors.As(err, &chain) == test.ok || (test.ok && err != nil) {
						t.Errorf("the error is %v", err)
					}
				})
			})
		}
	}
}

func TestSSEEphemeralEventsMoveNothing(t *testing.T) {
	gesture := "event: gesture\ndata: {\"v\":1,\"id\":\"g\",\"channel\":\"gesture\",\"type\":\"pointer\",\"routing\":{},\"time\":\"2026-11-23T10:00:00.000000Z\",\"data\":[1]}\n\n"
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, sse(cut, openBlock(cursor(0)), eventBlock(1, 0), gesture, gesture), sse(hang, openBlock(cursor(1))))
		items, err := collect(server.client(t).FollowCanvas(ctx, canvas, FollowOptions{}), 5)
		if err != nil {
			t.Fatal(err)
		}
		if items[3].Event == nil || items[3].Event.Channel != twinrail.Gesture || items[3].Cursor != "" {
			t.Errorf("the gesture is %+v", items[3])
		}
		requests, _ := server.seen()
		if got := requests[1].URL.Query().Get("cursor"); got != cursor(1) {
			t.Errorf("came back to %q, want %q", got, cursor(1))
		}
	})
}
