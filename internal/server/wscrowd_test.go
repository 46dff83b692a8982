package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/presence"
)

// TestPresenceStorm has many members come at once: each ends up knowing all, each
// of them once, from the snapshot or from few frames.
func TestPresenceStorm(t *testing.T) {
	const members = 60
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		peers := make([]*peer, members)
		for i := range peers {
			peers[i] = r.actor(fmt.Sprintf("u_%d", i))
		}
		type result struct {
			frames int
			err    string
		}
		results := make(chan result)
		for i, p := range peers {
			go func() {
				p.write(text(fmt.Sprintf(`{"op":"join","sub":"p",%s,"presence":%d}`, inThread, i)))
				known := make(map[string]bool)
				var res result
				for len(known) < members {
					f, err := readServerFrame(p.br)
					if err != nil {
						res.err = err.Error()
						break
					}
					var s twinrail.ServerFrame
					if err := json.Unmarshal(f.Payload, &s); err != nil {
						res.err = err.Error()
						break
					}
					came := s.Members
					if s.Op == twinrail.OpPresence {
						res.frames++
						came = s.Join
					}
					for _, m := range came {
						if known[m.SessionID] {
							res.err = "told twice of " + m.ActorID
						}
						known[m.SessionID] = true
					}
				}
				results <- res
			}()
		}
		var frames []int
		for range peers {
			res := <-results
			if res.err != "" {
				t.Error(res.err)
			}
			frames = append(frames, res.frames)
		}
		if most := slices.Max(frames); most > 6 {
			t.Errorf("told of %d members in up to %d frames", members, most)
		}
	})
}

// TestPresenceInParts has many be present with large states where somebody joins,
// and resumes many subscriptions: no frame is large, and in the end all are told of
// once; the client itself is always among the first.
func TestPresenceInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const present, subs, most = 300, 20, 256 << 10
		r := newBubbleRig(t)
		state := []byte(`"` + strings.Repeat("<", presence.MaxState-2) + `"`)
		r.crowd(present, twinrail.Routing{CanvasID: "c1"}, twinrail.CanvasStream, state)
		p, hello := r.greet(r.token)
		told := make(map[string]int) // of members, by sub
		members := func(sub string, first, list []twinrail.PresenceMember) {
			told[sub] += len(list)
			if first != nil && (len(first) == 0 || first[0].SessionID != hello.SessionID) {
				t.Errorf("%s begins with %s", sub, who(first[:min(1, len(first))]))
			}
		}
		// read reads until n are told of in each of the subs.
		read := func(n int) (token string) {
			for done := 0; done < subs; {
				f := p.raw()
				if len(f.Payload) > most {
					t.Fatalf("a frame has %d bytes", len(f.Payload))
				}
				var s twinrail.ServerFrame
				unmarshal(t, f.Payload, &s)
				if s.ResumeToken != "" {
					token = s.ResumeToken
				}
				switch s.Op {
				case twinrail.OpJoined:
					members(s.Sub, s.Members, s.Members)
				case twinrail.OpResumed:
					for _, sub := range s.Subs {
						members(sub.Sub, sub.Members, sub.Members)
					}
				case twinrail.OpPresence:
					members(s.Sub, nil, s.Join)
					if len(s.Leave)+len(s.Update) > 0 {
						t.Errorf("%d leave, %d change", len(s.Leave), len(s.Update))
					}
				}
				done = 0
				for _, have := range told {
					if have == n {
						done++
					}
				}
			}
			p.silent("once all are told of")
			return token
		}
		go func() {
			for i := range subs {
				p.say(`{"op":"join","sub":"s%d",%s,"presence":1}`, i, onCanvas)
			}
		}()
		token := read(present + 1)
		clear(told)
		p.cut()
		p, _ = r.greet(r.token)
		p.say(`{"op":"resume","resume_token":"%s"}`, token)
		read(present + 1)
	})
}
