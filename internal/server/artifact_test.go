package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

func artifact(n int, kind string) string {
	return fmt.Sprintf(`{"id":"a%d","channel":"artifact","type":"t","routing":{"canvas_id":"c1"},"data":{"n":%d, "kind":%s}}`, n, n, kind)
}

// TestArtifactKinds chooses among artifacts, live, in the replay and in history.
func TestArtifactKinds(t *testing.T) {
	for _, window := range []int{-1, 1 << 20} {
		r := newRig(t, func(o *Options) { o.Window = window })
		kinds := []string{`"preview"`, `"replay"`, `"audit"`, `"pre\u0076iew"`}
		publish := func() {
			for i, kind := range kinds {
				r.publish(artifact(i, kind), commit(i))
			}
		}
		publish()
		for _, c := range []struct{ query, want string }{
			{"", "a0 c a1 c a2 c a3 c"},
			{"&kinds=preview", "a0 c c c a3 c"},
			{"&kinds=replay,audit", "c a1 c a2 c c"},
			{"&kinds=preview&channels=artifact", "a0 a3"},
			{"&kinds=audit,audit,preview,replay", "a0 c a1 c a2 c a3 c"},
		} {
			replayed := r.tail(canvasPath + "&cursor=earliest" + c.query)
			replayed.open()
			live := r.tail(canvasPath + c.query)
			live.open()
			live.toLive()
			if got := short(replayed.toLive()); got != c.want {
				t.Errorf("replay %s: %s, want %s", c.query, got, c.want)
			}
			events, page := r.page(historyPath + c.query)
			if got := short(events); got != c.want || page.Next != page.Head {
				t.Errorf("history %s: %s at %s of %s, want %s", c.query, got, page.Next, page.Head, c.want)
			}
		}
		// What comes live is chosen alike; the last commit is the barrier.
		live := r.tail(canvasPath + "&kinds=audit")
		live.open()
		live.toLive()
		for i := range kinds {
			r.publish(fmt.Sprintf(`{"channel":"artifact","type":"t","routing":{"canvas_id":"c1"},"data":{"kind":%s}}`, kinds[i]))
		}
		r.commits(9, 10)
		if e := live.event(); e.Channel != twinrail.Artifact || string(e.Data) != `{"kind":"audit"}` {
			t.Errorf("live: %s %s", e.Channel, e.Data)
		}
		if e := live.event(); e.Channel != twinrail.Commit {
			t.Errorf("live: then %s %s", e.Channel, e.Data)
		}
	}
}

// short writes artifacts by their ids, and commits as c.
func short(events []twinrail.Event) string {
	var all []string
	for _, e := range events {
		if e.Channel == twinrail.Commit {
			all = append(all, "c")
		} else {
			all = append(all, e.ID)
		}
	}
	return strings.Join(all, " ")
}

func TestArtifactKindsRefused(t *testing.T) {
	r := newRig(t)
	for _, query := range []string{"&kinds=secret", "&kinds=preview,", "&kinds=Preview", "&kinds=preview&channels=commit"} {
		for _, path := range []string{canvasPath, historyPath} {
			if p := problemOf(t, r.get(path+query), twinrail.CodeBadRequest); p.Field != "kinds" {
				t.Errorf("%s%s: field %q", path, query, p.Field)
			}
		}
	}
	for _, kind := range []string{`"secret"`, `"Preview"`, `""`, `null`, `1`, `["preview"]`} {
		if p := problemOf(t, r.post(`{"events":[`+artifact(1, kind)+`]}`), twinrail.CodeBadRequest); p.Field != "events[0].data.kind" {
			t.Errorf("kind %s: field %q", kind, p.Field)
		}
	}
}

// TestArtifactRights has one who may read artifacts and not commits, and one the
// other way round, on either way in; what is durable comes back after a restart
// of the hub.
func TestArtifactRights(t *testing.T) {
	r := newRig(t)
	r.publish(artifact(1, `"audit"`), commit(1))
	for can, want := range map[string]string{"artifact:read": "a1", "commit:read": "c"} {
		token := r.issuer.Token(authtest.Grants(twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{can}}))
		mine := &rig{t: t, issuer: r.issuer, server: r.server, token: token, dial: r.dial, web: r.web}
		c := mine.tail(canvasPath + "&cursor=earliest")
		c.open()
		if got := short(c.toLive()); got != want {
			t.Errorf("%s: %s, want %s", can, got, want)
		}
		if events, _ := mine.page(historyPath); short(events) != want {
			t.Errorf("%s: history %s, want %s", can, short(events), want)
		}
		problemOf(t, mine.get(canvasPath+"&channels=commit,artifact"), twinrail.CodeNotFound)
	}
}

// TestLabelEntry finds the kind behind whatever else an event has.
func TestLabelEntry(t *testing.T) {
	issuer := authtest.New(t)
	w := issuer.Writer(twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", ActorID: "u_1"}, twinrail.Artifact)
	for data, want := range map[string]string{
		`{"kind":"audit"}`: "audit", "{ \"a\" : {\"kind\":\"replay\"},\n\"kind\" : \"preview\" }": "preview", `{"kind":"audit","kind":"replay"}`: "replay",
	} {
		rec := journal.NewRecord(w, twinrail.Event{ID: "x", Type: "t", To: []string{"u_1"}, Data: []byte(data)})
		if got := labelEntry(&journal.Entry{Stored: rec.Stored()}); got != want {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}
