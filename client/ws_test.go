package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/twinrail/twinrail"
)

// peer is the server's end of a WebSocket.
type peer struct {
	*websocket.Conn
	ctx context.Context
}

// ws answers with a WebSocket, a welcome with a heartbeat of 15 s, and the
// script, after which the connection is cut.
func ws(script func(p peer)) http.HandlerFunc {
	return wsWelcome(`{"op":"welcome","connection_id":"n1","session_id":"s1","heartbeat_ms":15000}`, script)
}

// wsWelcome is ws with another welcome.
func wsWelcome(welcome string, script func(p peer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{twinrail.Subprotocol}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		p := peer{conn, r.Context()}
		p.send(welcome)
		script(p)
	}
}

func (p peer) send(frames ...string) {
	for _, f := range frames {
		_ = p.Write(p.ctx, websocket.MessageText, []byte(f))
	}
}

// receive returns the client's next frame, or an empty one once it is gone.
func (p peer) receive() (frame twinrail.ClientFrame) {
	_, data, err := p.Read(p.ctx)
	if err == nil {
		_ = json.Unmarshal(data, &frame)
	}
	return frame
}

// hang reads what comes until the client goes.
func (p peer) hang() {
	for p.receive().Op != "" {
	}
}

// join takes the client's join and answers it.
func (p peer) join(at string) twinrail.ClientFrame {
	frame := p.receive()
	p.send(fmt.Sprintf(`{"op":"joined","ref":%q,"sub":%q,"cursor":%q,"head":%q,"resumed":true}`, frame.Ref, frame.Sub, at, at))
	return frame
}

func eventFrame(seq, prev int) string {
	return fmt.Sprintf(`{"op":"event","sub":"s","event":%s}`, eventJSON(twinrail.Chat, seq, prev))
}

func TestWSResumesAfterCuts(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var joins []twinrail.ClientFrame
		server := newFake(t,
			ws(func(p peer) {
				joins = append(joins, p.join(cursor(0)))
				p.send(eventFrame(1, 0), eventFrame(2, 1))
			}),
			ws(func(p peer) {
				joins = append(joins, p.join(cursor(2)))
				p.send(eventFrame(3, 2))
				half, _ := p.Writer(p.ctx, websocket.MessageText)
				_, _ = half.Write([]byte(eventFrame(4, 3)[:40])) // never finished
			}),
			ws(func(p peer) {
				joins = append(joins, p.join(cursor(3)))
				p.send(eventFrame(4, 3), `{"op":"live","sub":"s","cursor":"cursor-4"}`, `{"op":"novelty","sub":"s"}`, eventFrame(5, 4))
				p.hang()
			}),
		)
		routing := thread
		routing.SurfaceID = "s1"
		items, err := collect(server.client(t).FollowThread(ctx, routing, FollowOptions{From: twinrail.CursorEarliest, Channels: []twinrail.Channel{twinrail.Tool}}), 9)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := events(items), []uint64{1, 2, 3, 4, 5}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		if got, want := string(items[1].Raw), eventJSON(twinrail.Chat, 1, 0); got != want {
			t.Errorf("the raw event is %s, want %s", got, want)
		}
		if open := items[0].Open; open.ConnectionID != "n1" || !open.Resumed || open.Head != cursor(0) {
			t.Errorf("opened with %+v", open)
		}
		if items[7].Kind != KindLive || items[7].Cursor != cursor(4) {
			t.Errorf("item 7 is %+v, want live", items[7])
		}
		for i, want := range []string{"earliest", cursor(2), cursor(3)} {
			j := joins[i]
			if j.Op != twinrail.OpJoin || j.After != want || *j.Routing != routing || !slices.Equal(j.Channels, []twinrail.Channel{"tool"}) {
				t.Errorf("join %d is %+v with %+v, want one after %s", i, j, j.Routing, want)
			}
		}
		requests, _ := server.seen()
		if r := requests[0]; r.URL.Path != "/v1/ws" || r.Header.Get("Authorization") != "Bearer token-1" ||
			r.Header.Get("X-Tenant-Id") != "t_acme" || r.Header.Get("X-Env") != "dev" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
	})
}

func TestWSAnswersPingsAndTakesTheirCursors(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var pong, join twinrail.ClientFrame
		server := newFake(t,
			ws(func(p peer) {
				p.join(cursor(0))
				p.send(`{"op":"ping","ref":"r7","cursors":{"s":"cursor-7","other":"cursor-8"}}`)
				pong = p.receive()
			}),
			ws(func(p peer) { join = p.join(cursor(7)); p.hang() }),
		)
		if _, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		if pong.Op != twinrail.OpPong || pong.Ref != "r7" || join.After != cursor(7) {
			t.Errorf("answered %+v, came back with %+v", pong, join)
		}
	})
}

func TestWSStaysAliveWhileTheCallerIsBusy(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		pings := 0
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			for p.receive().Op == twinrail.OpPing {
				pings++
			}
		}))
		for _, err := range server.client(t).FollowThread(ctx, thread, FollowOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(5*time.Minute + time.Second)
			break
		}
		synctest.Wait()
		if pings != 20 {
			t.Errorf("%d pings in five minutes, want 20", pings)
		}
	})
}

func TestWSCutsASilentConnection(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		ends := make(chan error, 1)
		server := newFake(t,
			ws(func(p peer) {
				p.join(cursor(0))
				for range 4 {
					time.Sleep(30 * time.Second)
					p.send(`{"op":"ping"}`)
				}
				for {
					if _, _, err := p.Read(p.ctx); err != nil {
						ends <- err
						return
					}
				}
			}),
			ws(func(p peer) { p.join(cursor(0)); p.hang() }),
		)
		var cause error
		c := server.client(t, func(o *Options) { o.OnRetry = func(err error, _ time.Duration) { cause = err } })
		if _, err := collect(c.FollowThread(ctx, thread, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		if code := websocket.CloseStatus(<-ends); code != -1 {
			t.Errorf("the server saw the close code %d, want a cut: a clean close would end the session", code)
		}
		_, at := server.seen()
		if gap := at[1].Sub(at[0]); gap < 153750*time.Millisecond || gap > 154750*time.Millisecond || !errors.Is(cause, errSilent) {
			t.Errorf("cut after %v for %v, want 120 s + 33.75 s and up to 1 s of back-off", gap, cause)
		}
	})
}

func TestWSGivesResets(t *testing.T) {
	const reset = `{"op":"reset","sub":"s","reason":"cursor_unknown","oldest":"cursor-80","head":"cursor-90"}`
	bubble(t, func(t *testing.T, ctx context.Context) {
		var joins []twinrail.ClientFrame
		void := `{"op":"joined","sub":"s","cursor":"cursor-90","head":"cursor-90","resumed":false,"reason":"cursor_unknown"}`
		server := newFake(t,
			ws(func(p peer) { joins = append(joins, p.receive()); p.send(void) }), // cut before the reset
			ws(func(p peer) { joins = append(joins, p.receive()); p.send(void, reset, eventFrame(91, 90), reset) }),
			ws(func(p peer) { joins = append(joins, p.join("cursor-90")); p.hang() }),
		)
		items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{From: cursor(2)}), 6)
		if err != nil {
			t.Fatal(err)
		}
		want := twinrail.Reset{Reason: twinrail.CodeCursorUnknown, Requested: cursor(2), Oldest: "cursor-80", Head: "cursor-90"}
		if items[2].Kind != KindReset || *items[2].Reset != want {
			t.Errorf("item 2 is %+v, want a reset", items[2])
		}
		if items[4].Kind != KindReset || items[4].Reset.Requested != cursor(91) {
			t.Errorf("item 4 is %+v, want a reset", items[4])
		}
		for i, want := range []string{cursor(2), cursor(2), "cursor-90"} {
			if joins[i].After != want {
				t.Errorf("join %d was after %q, want %q", i, joins[i].After, want)
			}
		}
		fails := newFake(t, ws(func(p peer) { p.receive(); p.send(void, reset); p.hang() }))
		_, err = collect(fails.client(t).FollowThread(ctx, thread, FollowOptions{From: cursor(2), FailOnReset: true}), 3)
		wantCode(t, err, twinrail.CodeCursorUnknown)
	})
}

func TestWSDoesWhatTheCloseCodeSays(t *testing.T) {
	announce := func(code twinrail.Code, after int) string {
		return fmt.Sprintf(`{"op":"error","code":%q,"detail":"for the test","action":"backoff","retry_after_ms":%d,"request_id":"req-1"}`, code, after)
	}
	for _, test := range []struct {
		close  int
		frame  string
		stops  twinrail.Code // "" where the client comes back
		floor  time.Duration
		tokens int
	}{
		{4000, "", twinrail.CodeBadFrame, 0, 1},
		{4003, announce(twinrail.CodeContextMismatch, 0), twinrail.CodeContextMismatch, 0, 1},
		{4009, "", twinrail.CodeSessionTakenOver, 0, 1},
		{4010, "", twinrail.CodeCredentialRevoked, 0, 1},
		{4099, announce("novel", 0), "novel", 0, 1},
		{4100, announce(twinrail.CodeRateLimited, 5000), "", 5 * time.Second, 1},
		{4199, "", "", 0, 1},
		{4200, "", "", 0, 1},
		{4202, announce(twinrail.CodeDraining, 3000), "", 3 * time.Second, 1},
		{4202, `{"op":"drain","reconnect_after_ms":9000}`, "", 9 * time.Second, 1},
		{4299, "", "", 0, 1},
		{4300, announce(twinrail.CodeCredentialExpired, 0), "", 0, 2},
		{1011, "", "", 0, 1},
		{1001, "", "", 0, 1},
		{1008, "", twinrail.CodeBadFrame, 0, 1},
	} {
		t.Run(fmt.Sprintf("%d %s", test.close, test.frame), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				calls := 0
				server := newFake(t,
					ws(func(p peer) {
						p.join(cursor(0))
						if test.frame != "" {
							p.send(test.frame)
						}
						_ = p.Close(websocket.StatusCode(test.close), "")
					}),
					ws(func(p peer) { p.join(cursor(0)); p.hang() }),
				)
				items, err := collect(server.client(t, tokens(&calls)).FollowThread(ctx, thread, FollowOptions{}), 2)
				requests, at := server.seen()
				if calls != test.tokens {
					t.Errorf("%d tokens, want %d", calls, test.tokens)
				}
				if test.stops != "" {
					wantCode(t, err, test.stops)
					var response *ResponseError
					if !errors.As(err, &response) || response.Status != test.close || len(requests) != 1 {
						t.Errorf("stopped with %#v after %d requests", err, len(requests))
					}
					return
				}
				if err != nil || len(items) != 2 {
					t.Fatalf("%d items, then %v", len(items), err)
				}
				if gap := at[1].Sub(at[0]); gap < test.floor || gap > test.floor+time.Second {
					t.Errorf("came back after %v, want %v and up to 1 s", gap, test.floor)
				}
			})
		})
	}
}

// The close frame may be lost after its announcement.
func TestWSACutAfterTheAnnouncement(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			p.send(`{"op":"error","code":"credential_revoked","action":"stop"}`)
		}))
		_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2)
		wantCode(t, err, twinrail.CodeCredentialRevoked)
	})
}

func TestWSJoinIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t,
			ws(func(p peer) {
				p.send(fmt.Sprintf(`{"op":"error","ref":%q,"code":"limit_exceeded","retry":"backoff","retry_after_ms":4000}`, p.receive().Ref))
				p.hang()
			}),
			ws(func(p peer) {
				p.send(`{"op":"error","ref":"of-another","code":"internal","retry":"never"}`)
				p.send(fmt.Sprintf(`{"op":"error","ref":%q,"code":"not_found","retry":"never","request_id":"req-2"}`, p.receive().Ref))
				p.hang()
			}),
		)
		_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 1)
		wantCode(t, err, twinrail.CodeNotFound)
		if !strings.Contains(err.Error(), "req-2") {
			t.Errorf("the error is %v, without the request's id", err)
		}
		if _, at := server.seen(); at[1].Sub(at[0]) < 4*time.Second {
			t.Errorf("came back after %v, want 4 s at least", at[1].Sub(at[0]))
		}
	})
}

// What a renewal takes away is told without a reference.
func TestWSSubscriptionIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			p.send(`{"op":"error","ref":"of-another","sub":"s","code":"internal","retry":"never"}`,
				`{"op":"error","sub":"another","code":"internal","retry":"never"}`,
				`{"op":"error","sub":"s","code":"not_found","retry":"never"}`, `{"op":"left","sub":"s"}`)
			p.hang()
		}))
		_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2)
		wantCode(t, err, twinrail.CodeNotFound)
	})
}

func TestWSHandshakeIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		calls := 0
		server := newFake(t,
			problem(twinrail.CodeCredentialExpired),
			problem(twinrail.CodeDraining, func(h http.Header) { h.Set("Retry-After", "7") }),
			problem(twinrail.CodeRailDisabled),
		)
		_, err := collect(server.client(t, tokens(&calls)).FollowThread(ctx, thread, FollowOptions{}), 1)
		wantCode(t, err, twinrail.CodeRailDisabled)
		requests, at := server.seen()
		if got := requests[1].Header.Get("Authorization"); got != "Bearer token-2" {
			t.Errorf("came back with %q, want the second token", got)
		}
		if gap := at[2].Sub(at[1]); gap < 7*time.Second {
			t.Errorf("came back after %v, want 7 s at least", gap)
		}
	})
}

func TestWSStopsAtWhatItCannotRead(t *testing.T) {
	for name, script := range map[string]func(p peer){
		"too long":   func(p peer) { p.send(`{"op":"` + strings.Repeat("x", 1<<15) + `"}`) },
		"binary":     func(p peer) { _ = p.Write(p.ctx, websocket.MessageBinary, []byte(`{}`)) },
		"not JSON":   func(p peer) { p.send(`{"op"`) },
		"no event":   func(p peer) { p.send(`{"op":"event","sub":"s","event":[]}`) },
		"the past":   func(p peer) { p.send(eventFrame(4, 3), eventFrame(4, 3)) },
		"the past 2": func(p peer) { p.send(eventFrame(4, 3), eventFrame(3, 2)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t, ws(func(p peer) { p.join(cursor(0)); script(p); p.hang() }))
				c := server.client(t, func(o *Options) { o.MaxMessage = 1 << 14 })
				items, err := collect(c.FollowThread(ctx, thread, FollowOptions{}), 3)
				if requests, _ := server.seen(); err == nil || ctx.Err() != nil || len(requests) != 1 {
					t.Errorf("%d items, then %v after %d requests", len(items), err, len(requests))
				}
			})
		})
	}
	t.Run("another server", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if conn, err := websocket.Accept(w, r, nil); err == nil {
					defer conn.CloseNow()
					_, _, _ = conn.Read(r.Context())
				}
			})
			_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 1)
			if err == nil || !strings.Contains(err.Error(), twinrail.Subprotocol) {
				t.Errorf("the error is %v", err)
			}
		})
	})
}

// A loop that is broken off leaves cleanly: the server sees a close frame.
func TestWSABreakIsACleanLeave(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		closed := make(chan websocket.StatusCode, 1)
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			_, _, err := p.Read(p.ctx)
			closed <- websocket.CloseStatus(err)
		}))
		if _, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 1); err != nil {
			t.Fatal(err)
		}
		if got := <-closed; got != websocket.StatusNormalClosure {
			t.Errorf("the server saw the close code %d", got)
		}
	})
}

// A server that does not answer the farewell holds up nobody for long.
func TestWSABreakDoesNotWaitForTheServer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, ws(func(p peer) {
			p.join(cursor(0))
			time.Sleep(time.Minute) // and reads nothing
		}))
		start := time.Now()
		if _, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > farewellTime {
			t.Errorf("the loop's end took %v, want %v at most", took, farewellTime)
		}
	})
}
