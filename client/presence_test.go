package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

// joined answers a join on the channel presence.
func (p peer) joined(token, members string) twinrail.ClientFrame {
	frame := p.receive()
	p.send(fmt.Sprintf(`{"op":"joined","ref":%q,"sub":"s","cursor":"cursor-0","head":"cursor-0","resumed":false,"resume_token":%q,"members":%s}`, frame.Ref, token, members))
	return frame
}

func subWith(members string) string {
	return fmt.Sprintf(`{"sub":"s","cursor":"cursor-0","head":"cursor-0","resumed":true,"members":%s}`, members)
}

// presences returns what the items say of presence, as JSON.
func presences(t *testing.T, items []Item) []string {
	t.Helper()
	var said []string
	for _, item := range items {
		if item.Kind == KindPresence {
			text, err := json.Marshal(item.Presence)
			if err != nil || item.Cursor != "" {
				t.Fatalf("%+v: %v", item, err)
			}
			said = append(said, string(text))
		}
	}
	return said
}

func TestPresence(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"members":[{"actor_id":"u_1","session_id":"s1","state":1}],"next":"5.p1"}`)
		}, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"members":[]}`)
		}, problem(twinrail.CodeBadRequest))
		c := server.client(t)
		page, err := c.Presence(ctx, thread, PresenceOptions{Limit: 1})
		if err != nil || len(page.Members) != 1 || page.Members[0].ActorID != "u_1" || page.Next != "5.p1" {
			t.Errorf("page %+v, %v", page, err)
		}
		page, err = c.Presence(ctx, thread, PresenceOptions{After: page.Next})
		if err != nil || len(page.Members) != 0 || page.Next != "" {
			t.Errorf("page %+v, %v", page, err)
		}
		routing := canvas
		routing.ThreadID = "th1"
		_, err = c.Presence(ctx, routing, PresenceOptions{})
		wantCode(t, err, twinrail.CodeBadRequest)
		requests, _ := server.seen()
		for i, want := range []string{"/v1/presence?limit=1&stream=thread", "/v1/presence?after=5.p1&stream=thread", "/v1/presence?stream=canvas"} {
			if got := requests[i].URL.String(); got != want || requests[i].Header.Get("X-Thread-Id") != "th1" {
				t.Errorf("asked for %s, want %s", got, want)
			}
		}
	})
}

func TestFollowPresence(t *testing.T) {
	const (
		me  = `{"actor_id":"u_1","session_id":"s1","state":{"at":1}}`
		you = `{"actor_id":"u_2","session_id":"s2","state":2}`
	)
	bubble(t, func(t *testing.T, ctx context.Context) {
		var frames []twinrail.ClientFrame
		server := newFake(t,
			ws(func(p peer) {
				frames = append(frames, p.joined("j1", `[`+me+`]`))
				p.send(`{"op":"live","sub":"s","cursor":"cursor-0"}`,
					`{"op":"presence","sub":"other","join":[{"actor_id":"u_9","session_id":"s9"}],"update":[],"leave":[]}`,
					`{"op":"presence","sub":"s","join":[`+you+`],"update":[`+me+`],"leave":[{"actor_id":"u_3","session_id":"s3"}]}`)
			}),
			ws(func(p peer) { frames = append(frames, p.resume("r2", subWith(`[`+me+`,`+you+`]`))) }),
			ws(func(p peer) {
				frame := p.receive()
				p.answerCode(frame, twinrail.CodeResumeExpired)
				frames = append(frames, frame, p.joined("j3", `[]`))
				p.hang()
			}),
		)
		routing := canvas
		routing.PanelID = "p1"
		items, err := collect(server.client(t).FollowPresence(ctx, routing, json.RawMessage(`{"at":1}`)), 8)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			`{"members":[` + me + `]}`,
			`{"leave":[{"actor_id":"u_3","session_id":"s3"}],"join":[` + you + `],"update":[` + me + `]}`,
			`{"members":[` + me + `,` + you + `]}`,
			`{"members":[]}`,
		}
		if got := presences(t, items); !slices.Equal(got, want) {
			t.Errorf("presence was\n%v\nwant\n%v", got, want)
		}
		for _, join := range []twinrail.ClientFrame{frames[0], frames[3]} {
			if join.Op != twinrail.OpJoin || string(join.Presence) != `{"at":1}` || *join.Routing != routing || !slices.Equal(join.Channels, []twinrail.Channel{"presence"}) {
				t.Errorf("sent %+v, want a join with presence", join)
			}
		}
		wantResume(t, frames[1], "j1", cursor(0))
		wantResume(t, frames[2], "r2", cursor(0))
	})
}

// Who only watches says nothing of itself, and a thread has presence too.
func TestFollowPresenceOfAThread(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var join, answer twinrail.ClientFrame
		server := newFake(t,
			ws(func(p peer) { join = p.joined("j1", `[]`) }),
			ws(func(p peer) {
				p.resume("r2", subWith(`[]`))
				p.send(`{"op":"ping","ref":"7"}`)
				answer = p.receive()
				p.send(`{"op":"live","sub":"s","cursor":"cursor-0"}`)
				p.hang()
			}),
		)
		if _, err := collect(server.client(t).FollowPresence(ctx, thread, nil), 5); err != nil {
			t.Fatal(err)
		}
		if join.Presence != nil || *join.Routing != thread || answer.Op != twinrail.OpPong {
			t.Errorf("sent %+v and then %+v", join, answer)
		}
	})
}

// A follower of a thread's events is present too, and sees who is.
func TestFollowThreadIsPresent(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var join twinrail.ClientFrame
		server := newFake(t, ws(func(p peer) {
			join = p.joined("j1", `[{"actor_id":"u_1","session_id":"s1"}]`)
			p.send(eventFrame(1, 0), `{"op":"presence","sub":"s","leave":[{"actor_id":"u_1","session_id":"s1"}]}`, eventFrame(2, 1))
			p.hang()
		}))
		o := FollowOptions{Channels: []twinrail.Channel{twinrail.Chat, twinrail.Presence}, Presence: json.RawMessage(`null`)}
		items, err := collect(server.client(t).FollowThread(ctx, thread, o), 5)
		if err != nil {
			t.Fatal(err)
		}
		wantEvents(t, items, 1, 2)
		if items[1].Kind != KindPresence || len(items[1].Presence.Members) != 1 || items[3].Kind != KindPresence || len(items[3].Presence.Leave) != 1 {
			t.Errorf("items %+v", items)
		}
		if !slices.Equal(join.Channels, o.Channels) {
			t.Errorf("joined with %+v", join)
		}
	})
}

// After a restart of the server the session is there, but what its member said
// may be gone: it is said again, once, and a refusal of it is heard.
func TestWSSaysItsStateAgain(t *testing.T) {
	for name, test := range map[string]struct {
		sub  string
		says bool
	}{
		"it is there":         {subWith(`[{"actor_id":"u_2","session_id":"s2"},{"actor_id":"u_1","session_id":"s1","state":7}]`), false},
		"without its state":   {subWith(`[{"actor_id":"u_1","session_id":"s1"}]`), true},
		"it is not there":     {subWith(`[{"actor_id":"u_1","session_id":"s2","state":7}]`), true},
		"the client is blind": {subAt(cursor(0)), true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var frame, next twinrail.ClientFrame
				server := newFake(t,
					wsWelcome(`{"op":"welcome","connection_id":"n1","session_id":"s1","heartbeat_ms":15000}`, func(p peer) { p.joined("j1", `[]`) }),
					wsWelcome(`{"op":"welcome","connection_id":"n2","session_id":"interim","heartbeat_ms":15000}`, func(p peer) {
						p.resume("r2", test.sub)
						p.send(`{"op":"ping"}`)
						frame, next = p.receive(), twinrail.ClientFrame{}
						if frame.Op == twinrail.OpPresence {
							next = p.receive()
							p.send(fmt.Sprintf(`{"op":"error","ref":%q,"sub":"s","code":"not_found","retry":"never"}`, frame.Ref))
						}
						p.hang()
					}),
				)
				o := FollowOptions{Channels: []twinrail.Channel{twinrail.Chat, twinrail.Presence}, Presence: json.RawMessage(`7`)}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				_, err := collect(server.client(t).FollowThread(ctx, thread, o), 100)
				if !test.says {
					if frame.Op != twinrail.OpPong || ctx.Err() == nil {
						t.Errorf("sent %+v, want a pong alone, and ended with %v", frame, err)
					}
					return
				}
				if frame.Op != twinrail.OpPresence || frame.Sub != "s" || string(frame.State) != "7" || next.Op != twinrail.OpPong {
					t.Errorf("sent %+v and %+v, want the state and a pong", frame, next)
				}
				wantCode(t, err, twinrail.CodeNotFound)
			})
		})
	}
}

func TestPresenceIsCheckedFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, http.NotFound)
		c := server.client(t)
		_, err := collect(c.FollowCanvas(ctx, canvas, FollowOptions{Presence: json.RawMessage(`1`)}), 1)
		wantCode(t, err, twinrail.CodeWrongRail)
		_, err = collect(c.FollowCanvas(ctx, canvas, FollowOptions{Channels: []twinrail.Channel{twinrail.Presence}}), 1)
		wantCode(t, err, twinrail.CodeWrongRail)
		_, err = collect(c.FollowPresence(ctx, canvas, json.RawMessage(`{`)), 1)
		wantCode(t, err, twinrail.CodeBadRequest)
		_, err = collect(c.FollowPresence(ctx, twinrail.Routing{TenantID: "t_acme", Env: "dev"}, nil), 1)
		wantCode(t, err, twinrail.CodeContextMissing)
		if requests, _ := server.seen(); len(requests) != 0 {
			t.Errorf("%d requests were sent", len(requests))
		}
	})
}

// Whatever came, came again elsewhere, changed and left: a roster that was told of
// the differences is equal to the truth, and so is one that began with a snapshot
// in the middle.
func TestRosterProperty(t *testing.T) {
	member := rapid.Custom(func(t *rapid.T) twinrail.PresenceMember {
		m := twinrail.PresenceMember{
			ActorID: rapid.SampledFrom([]string{"u_1", "u_2"}).Draw(t, "actor"), SessionID: rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "session"),
			State: json.RawMessage(fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "state"))),
		}
		if panel := rapid.SampledFrom([]string{"", "p1", "p2"}).Draw(t, "panel"); panel != "" {
			m.Routing = &twinrail.Routing{PanelID: panel}
		}
		return m
	})
	same := func(a, b twinrail.PresenceMember) bool {
		return a.ActorID == b.ActorID && a.SessionID == b.SessionID && reflect.DeepEqual(a.Routing, b.Routing)
	}
	rapid.Check(t, func(t *rapid.T) {
		var truth []twinrail.PresenceMember
		var roster Roster
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			m := member.Draw(t, "member")
			i := slices.IndexFunc(truth, func(other twinrail.PresenceMember) bool { return same(m, other) })
			p := &Presence{}
			switch {
			case rapid.IntRange(0, 5).Draw(t, "snapshot") == 0:
				truth = []twinrail.PresenceMember{m}
				p.Members = truth
			case i < 0:
				truth, p.Join = append(slices.Clone(truth), m), []twinrail.PresenceMember{m}
			case rapid.Bool().Draw(t, "leaves"):
				truth = slices.Delete(slices.Clone(truth), i, i+1)
				gone := m
				gone.State = nil
				p.Leave = []twinrail.PresenceMember{gone}
				if rapid.Bool().Draw(t, "and comes again") {
					truth, p.Join = append(truth, m), []twinrail.PresenceMember{m}
				}
			default:
				truth = slices.Clone(truth)
				truth[i], p.Update = m, []twinrail.PresenceMember{m}
			}
			roster.Apply(p)
			got := roster.Members()
			names := make([]string, len(got))
			for i, m := range got {
				names[i] = m.ActorID + m.SessionID
				if m.Routing != nil {
					names[i] += m.Routing.PanelID
				}
			}
			if len(got) != len(truth) || !slices.IsSorted(names) {
				t.Fatalf("the roster is %v, want %v", got, truth)
			}
			for _, m := range truth {
				if !slices.ContainsFunc(got, func(other twinrail.PresenceMember) bool { return reflect.DeepEqual(m, other) }) {
					t.Fatalf("the roster is %v, want %v", got, truth)
				}
			}
		}
	})
}
