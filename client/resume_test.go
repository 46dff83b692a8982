package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

// joinAt takes the client's join and answers it with a resume token.
func (p peer) joinAt(at, token string) twinrail.ClientFrame {
	frame := p.receive()
	p.send(fmt.Sprintf(`{"op":"joined","ref":%q,"sub":"s","cursor":%q,"head":%q,"resumed":true,"resume_token":%q}`, frame.Ref, at, at, token))
	return frame
}

// resume takes the client's resume and answers it with subs and the next token.
func (p peer) resume(token, subs string) twinrail.ClientFrame {
	frame := p.receive()
	p.send(fmt.Sprintf(`{"op":"resumed","ref":%q,"session_id":"s1","resume_token":%q,"subs":[%s]}`, frame.Ref, token, subs))
	return frame
}

func subAt(at string) string {
	return fmt.Sprintf(`{"sub":"s","cursor":%q,"head":%q,"resumed":true}`, at, at)
}

// wantResume fails unless frame resumes with the token from the cursor, or, where
// that is "", without any.
func wantResume(t *testing.T, frame twinrail.ClientFrame, token, cursor string) {
	t.Helper()
	if frame.Op != twinrail.OpResume || frame.ResumeToken != token || frame.Cursors["s"] != cursor || frame.Sub != "" || frame.Routing != nil {
		t.Errorf("sent %+v, want a resume with %q from %q", frame, token, cursor)
	}
}

func wantJoin(t *testing.T, frame twinrail.ClientFrame, after string) {
	t.Helper()
	if frame.Op != twinrail.OpJoin || frame.After != after || frame.ResumeToken != "" {
		t.Errorf("sent %+v, want a join after %q", frame, after)
	}
}

func wantEvents(t *testing.T, items []Item, want ...uint64) {
	t.Helper()
	if got := events(items); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	for _, item := range items {
		if item.Kind == KindReset {
			t.Errorf("a reset came: %+v", item.Reset)
		}
	}
}

func TestWSResumesTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var frames []twinrail.ClientFrame
		server := newFake(t,
			ws(func(p peer) {
				frames = append(frames, p.joinAt(cursor(0), "j1"))
				p.send(eventFrame(1, 0), eventFrame(2, 1))
			}),
			ws(func(p peer) {
				frames = append(frames, p.resume("r2", `{"sub":"other","code":"not_found"},`+subAt(cursor(2))))
				p.send(eventFrame(3, 2), `{"op":"live","sub":"s","cursor":"cursor-3"}`, `{"op":"ping","cursors":{"s":"cursor-7"}}`)
				p.receive()
			}),
			ws(func(p peer) {
				frames = append(frames, p.resume("r3", subAt(cursor(7))))
				p.send(eventFrame(8, 3), `{"op":"left","sub":"other","resume_token":"l3"}`, `{"op":"resumed","resume_token":"nobody asked","subs":[]}`)
			}),
			ws(func(p peer) {
				frames = append(frames, p.resume("r4", subAt(cursor(8))))
				p.send(`{"op":"authed","resume_token":"a4","expires_at":"2026-11-23T10:00:00Z"}`)
			}),
			ws(func(p peer) { frames = append(frames, p.resume("r5", subAt(cursor(8)))); p.hang() }),
		)
		items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{From: cursor(0)}), 10)
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, items, 1, 2, 3, 8)
		if open := items[3].Open; open == nil || open.ConnectionID != "n1" || !open.Resumed || open.Cursor != cursor(2) || open.Head != cursor(2) {
			t.Errorf("item 3 is %+v, want an open", items[3])
		}
		wantJoin(t, frames[0], cursor(0))
		wantResume(t, frames[1], "j1", cursor(2))
		wantResume(t, frames[2], "r2", cursor(7))
		wantResume(t, frames[3], "l3", cursor(8))
		wantResume(t, frames[4], "a4", cursor(8))
	})
}

// answerCode answers frame with an error that leaves the connection open.
func (p peer) answerCode(frame twinrail.ClientFrame, code twinrail.Code) {
	p.send(fmt.Sprintf(`{"op":"error","ref":%q,"code":%q,"retry":%q}`, frame.Ref, code, code.Info().Retry))
}

// A token that is refused is forgotten, and the thread joined over the same
// connection.
func TestWSJoinsWhereTheResumeIsRefused(t *testing.T) {
	for _, code := range []twinrail.Code{
		twinrail.CodeResumeInvalid, twinrail.CodeResumeUsed, twinrail.CodeResumeExpired, twinrail.CodeBadFrame, twinrail.CodeBadRequest,
		twinrail.CodeCredentialRevoked, // that of the token's making; the one in use is good
	} {
		t.Run(string(code), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var resume, join, next, last twinrail.ClientFrame
				server := newFake(t,
					ws(func(p peer) { p.joinAt(cursor(0), "j1"); p.send(eventFrame(1, 0)) }),
					ws(func(p peer) {
						resume = p.receive()
						p.answerCode(resume, code)
						join = p.join(cursor(1)) // and says no token
						p.send(eventFrame(2, 1))
					}),
					ws(func(p peer) {
						next = p.receive()
						p.send(`{"op":"joined","ref":"join","sub":"s","resume_token":"j3","cursor":"cursor-2"}`, eventFrame(3, 2))
					}),
					ws(func(p peer) {
						last = p.receive()
						p.answerCode(last, code)
						p.joinAt(cursor(3), "j4")
					}),
					ws(func(p peer) { last = p.resume("r5", subAt(cursor(3))); p.hang() }),
				)
				items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 8)
				if err != nil {
					t.Fatal(err)
				}
				wantEvents(t, items, 1, 2, 3)
				wantResume(t, resume, "j1", cursor(1))
				wantJoin(t, join, cursor(1))
				wantJoin(t, next, cursor(2))
				wantResume(t, last, "j4", cursor(3)) // also after a refusal on the same connection
			})
		})
	}
}

// A server that closes because of the resume is come back to with a join.
func TestWSComesBackWhereTheResumeCloses(t *testing.T) {
	for name, frame := range map[string]string{
		"announced": `{"op":"error","code":"resume_expired","action":"stop"}`,
		"bare":      "",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var join twinrail.ClientFrame
				server := newFake(t,
					ws(func(p peer) { p.joinAt(cursor(0), "j1"); p.send(eventFrame(1, 0)) }),
					ws(func(p peer) {
						p.receive()
						if frame != "" {
							p.send(frame)
						}
						_ = p.Close(4000, "")
					}),
					ws(func(p peer) { join = p.joinAt(cursor(1), "j3"); p.send(eventFrame(2, 1)); p.hang() }),
				)
				items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 4)
				if err != nil {
					t.Fatal(err)
				}
				wantEvents(t, items, 1, 2)
				wantJoin(t, join, cursor(1))
			})
		})
	}
}

func TestWSOtherAnswersToAResume(t *testing.T) {
	revoked := func(p peer, _ twinrail.ClientFrame) {
		p.send(`{"op":"error","code":"credential_revoked","action":"stop"}`)
		_ = p.Close(4010, "")
	}
	for name, test := range map[string]struct {
		answer func(p peer, resume twinrail.ClientFrame)
		stops  twinrail.Code // "" where the client comes back with the token next
		next   string
		from   string // and the cursor, where the session has the subscription
	}{
		"revoked":       {revoked, twinrail.CodeCredentialRevoked, "", ""},
		"not its place": {func(p peer, f twinrail.ClientFrame) { p.answerCode(f, twinrail.CodeContextMismatch); p.hang() }, twinrail.CodeContextMismatch, "", ""},
		"too many":      {func(p peer, f twinrail.ClientFrame) { p.answerCode(f, twinrail.CodeRateLimited); p.hang() }, "", "j1", cursor(1)},
		"a cut":         {func(peer, twinrail.ClientFrame) {}, "", "j1", cursor(1)},
		"not its token": {func(p peer, _ twinrail.ClientFrame) { p.send(`{"op":"authed","resume_token":"interim"}`) }, "", "j1", cursor(1)},
		"sub refused": {func(p peer, _ twinrail.ClientFrame) {
			p.send(`{"op":"resumed","ref":"resume","resume_token":"r2","subs":[{"sub":"s","code":"not_found","detail":"gone"}]}`)
			p.hang()
		}, twinrail.CodeNotFound, "", ""},
		"sub too many": {func(p peer, _ twinrail.ClientFrame) {
			p.send(`{"op":"resumed","ref":"resume","resume_token":"r2","subs":[{"sub":"s","code":"limit_exceeded"}]}`)
			p.hang()
		}, "", "r2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var next twinrail.ClientFrame
				server := newFake(t,
					ws(func(p peer) { p.joinAt(cursor(0), "j1"); p.send(eventFrame(1, 0)) }),
					ws(func(p peer) { test.answer(p, p.receive()) }),
					ws(func(p peer) { next = p.resume("r3", subAt(cursor(1))); p.send(eventFrame(2, 1)); p.hang() }),
				)
				items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 4)
				if test.stops != "" {
					wantCode(t, err, test.stops)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				wantEvents(t, items, 1, 2)
				wantResume(t, next, test.next, test.from)
			})
		})
	}
}

// A cut before the join was answered leaves a session without the subscription.
func TestWSResumesASessionWithoutASubscription(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var resume, join twinrail.ClientFrame
		welcome := `{"op":"welcome","connection_id":"n1","session_id":"s1","heartbeat_ms":15000,"resume_token":"w1"}`
		server := newFake(t,
			ws(func(p peer) { p.joinAt(cursor(0), "j0") }),
			ws(func(p peer) { p.answerCode(p.receive(), twinrail.CodeResumeExpired) }),
			wsWelcome(welcome, func(p peer) { p.receive() }),
			wsWelcome(`{"op":"welcome","connection_id":"n2","session_id":"s2","heartbeat_ms":15000,"resume_token":"w2"}`, func(p peer) { p.receive() }),
			ws(func(p peer) {
				resume = p.resume("r2", "")
				join = p.joinAt(cursor(0), "j2")
				p.send(eventFrame(1, 0))
				p.hang()
			}),
		)
		items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{From: cursor(0)}), 3)
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, items, 1)
		wantResume(t, resume, "w1", "") // not that of the session that only asked
		wantJoin(t, join, cursor(0))
	})
}

func TestWSResumeWithAVoidCursorGivesOneReset(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var next twinrail.ClientFrame
		void := `{"sub":"s","cursor":"cursor-90","head":"cursor-90","resumed":false,"reason":"cursor_expired"}`
		server := newFake(t,
			ws(func(p peer) { p.joinAt(cursor(0), "j1"); p.send(eventFrame(1, 0)) }),
			ws(func(p peer) { p.resume("r2", void) }), // cut before the reset
			ws(func(p peer) {
				next = p.resume("r3", void)
				p.send(`{"op":"reset","sub":"s","reason":"cursor_expired","oldest":"cursor-80","head":"cursor-90"}`)
				p.hang()
			}),
		)
		items, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 5)
		if err != nil {
			t.Fatal(err)
		}
		wantResume(t, next, "r2", cursor(1))
		if items[2].Open.Reason != twinrail.CodeCursorExpired || items[4].Kind != KindReset || items[4].Reset.Requested != cursor(1) {
			t.Errorf("items %+v", items)
		}
	})
}

func TestWSTakenOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, ws(func(p peer) {
			p.joinAt(cursor(0), "j1")
			p.send(`{"op":"error","code":"session_taken_over","action":"stop","request_id":"req-1"}`)
			_ = p.Close(4009, "")
		}))
		_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2)
		wantCode(t, err, twinrail.CodeSessionTakenOver)
		var response *ResponseError
		if !errors.As(err, &response) || response.Status != 4009 || response.RequestID != "req-1" {
			t.Errorf("the error is %#v", err)
		}
	})
}

// A context that ends is a clean close, and one that nobody answers is a short one.
func TestWSLeavesCleanlyWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		closed := make(chan websocket.StatusCode, 1)
		server := newFake(t,
			ws(func(p peer) {
				p.join(cursor(0))
				_, _, err := p.Read(p.ctx)
				closed <- websocket.CloseStatus(err)
			}),
			ws(func(p peer) { p.join(cursor(0)); time.Sleep(time.Minute) }), // takes nothing
		)
		for _, most := range []time.Duration{0, farewellTime} {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			start := time.Now()
			_, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 10*time.Second+most {
				t.Errorf("ended with %v after %v, want 10 s and %v", err, took, most)
			}
			cancel()
		}
		if got := <-closed; got != websocket.StatusNormalClosure {
			t.Errorf("the server saw the close code %d", got)
		}
	})
}

func TestWSGivesNothingAfterItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, ws(func(p peer) { p.join(cursor(0)); p.send(eventFrame(1, 0), eventFrame(2, 1)); p.hang() }))
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		given := 0
		for _, err := range server.client(t).FollowThread(ctx, thread, FollowOptions{}) {
			if err != nil {
				break
			}
			if given++; given == 2 { // the first event; the second is there to be read
				cancel()
			}
		}
		if given != 2 {
			t.Errorf("%d items, want 2", given)
		}
	})
}

// sessionServer is a model of a server with a log of so many events. Each
// connection does as its step says.
type sessionServer struct {
	events int
	tokens int             // given
	used   map[string]bool // resumed with
	steps  []sessionStep
}

// sessionStep is one connection: it is cut after so many frames to the client,
// and refuses to resume with the code, unless that is "".
type sessionStep struct {
	frames int
	refuse twinrail.Code
	expire bool // says that the token is about to expire, before the events
}

func (s *sessionServer) handlers() []http.HandlerFunc {
	var all []http.HandlerFunc
	for _, step := range s.steps {
		all = append(all, ws(func(p peer) { s.serve(p, step) }))
	}
	return all
}

func (s *sessionServer) token() string {
	s.tokens++
	return fmt.Sprintf("t%d", s.tokens)
}

func (s *sessionServer) serve(p peer, step sessionStep) {
	left := step.frames
	say := func(frame string) bool {
		if left--; left >= 0 {
			p.send(frame)
		}
		return left >= 0
	}
	frame := p.receive()
	if frame.Op == twinrail.OpResume && (step.refuse != "" || s.used[frame.ResumeToken]) {
		code := step.refuse
		if code == "" {
			code = twinrail.CodeResumeUsed
		}
		if !say(fmt.Sprintf(`{"op":"error","ref":%q,"code":%q,"retry":"never"}`, frame.Ref, code)) {
			return
		}
		frame = p.receive()
	}
	after := frame.After
	answer := `{"op":"joined","ref":%q,"sub":"s","resume_token":%q,"cursor":%q,"head":"h","resumed":true}`
	if frame.Op == twinrail.OpResume {
		s.used[frame.ResumeToken] = true
		after = frame.Cursors["s"]
		answer = `{"op":"resumed","ref":%q,"resume_token":%q,"subs":[{"sub":"s","cursor":%q,"head":"h","resumed":true}]}`
	}
	if !say(fmt.Sprintf(answer, frame.Ref, s.token(), after)) {
		return
	}
	if step.expire && !say(`{"op":"auth_expiring","expires_at":"2026-11-23T10:00:00Z"}`) {
		return
	}
	var seq int
	_, _ = fmt.Sscanf(after, "cursor-%d", &seq)
	for seq++; seq <= s.events; seq++ {
		if !say(eventFrame(seq, seq-1)) {
			return
		}
	}
	p.hang()
}

// However connections are cut, resumed and refused: each event once, in order,
// and no token is resumed with after it was taken.
func TestWSEachEventOnceProperty(t *testing.T) {
	codes := []twinrail.Code{"", "", twinrail.CodeResumeInvalid, twinrail.CodeResumeExpired, twinrail.CodeBadRequest}
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) sessionStep {
		return sessionStep{
			frames: rapid.IntRange(0, 6).Draw(t, "frames"), refuse: rapid.SampledFrom(codes).Draw(t, "refuse"),
			expire: rapid.Bool().Draw(t, "expire"),
		}
	}), 0, 8)
	rapid.Check(t, func(rt *rapid.T) {
		model := &sessionServer{events: rapid.IntRange(1, 12).Draw(rt, "events"), used: map[string]bool{}}
		model.steps = append(steps.Draw(rt, "steps"), sessionStep{frames: 100})
		var failure error
		bubble(t, func(t *testing.T, ctx context.Context) {
			failure = followAll(ctx, newFake(t, model.handlers()...), t, model.events)
		})
		if failure != nil {
			rt.Fatal(failure)
		}
	})
}

// followAll follows until the last of so many events, and returns what is wrong
// with what came.
func followAll(ctx context.Context, server *fake, t *testing.T, last int) error {
	calls, next := 0, uint64(1)
	for item, err := range server.client(t, tokens(&calls)).FollowThread(ctx, thread, FollowOptions{From: cursor(0)}) {
		switch {
		case err != nil:
			return err
		case item.Kind == KindReset:
			return fmt.Errorf("a reset: %+v", item.Reset)
		case item.Kind == KindEvent && item.Event.Seq != next:
			return fmt.Errorf("event %d came, not %d", item.Event.Seq, next)
		case item.Kind == KindEvent:
			next++
		}
		if next > uint64(last) {
			return nil
		}
	}
	return errors.New("the iteration ended without an error")
}

func TestClientFramesAreWhatTheServerTakes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var raw []byte
		server := newFake(t,
			ws(func(p peer) { p.joinAt(cursor(0), "j1") }),
			ws(func(p peer) {
				_, raw, _ = p.Read(p.ctx)
				p.send(`{"op":"resumed","subs":[` + subAt(cursor(0)) + `]}`)
				p.hang()
			}),
		)
		if _, err := collect(server.client(t).FollowThread(ctx, thread, FollowOptions{}), 2); err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil || len(members) != 4 {
			t.Errorf("resumed with %s, want op, ref, resume_token and cursors alone", raw)
		}
	})
}
