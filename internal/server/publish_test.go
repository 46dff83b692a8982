package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

func TestPublishOneToHundred(t *testing.T) {
	r := newRig(t)
	for _, n := range []int{0, 101} {
		p := problemOf(t, r.post(`{"events":[`+strings.TrimPrefix(strings.Repeat(","+commit(1), n), ",")+`]}`), twinrail.CodeBadRequest)
		if p.Field != "events" {
			t.Errorf("%d events: field %q", n, p.Field)
		}
	}
	var batch []string
	for i := range 100 {
		batch = append(batch, commit(i))
	}
	results := r.publish(batch...)
	events, _ := r.page(historyPath)
	if len(events) != 100 {
		t.Fatalf("%d events stored", len(events))
	}
	for i, e := range events {
		got := results[i]
		if got.ID != e.ID || got.Seq != e.Seq || *got.Prev != *e.Prev || got.Cursor != e.Cursor || !got.Time.Equal(e.Time) || got.Duplicate {
			t.Fatalf("result %d is %+v, the event %+v", i, got, e)
		}
	}
}

// TestPublishAllOrNone has one event of several wrong in each way.
func TestPublishAllOrNone(t *testing.T) {
	r := newRig(t)
	r.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "*", Can: []string{"commit:*", "artifact:*"}}))
	event := func(members string) string {
		return `{"channel":"commit","routing":{"canvas_id":"c1"},` + members + `}`
	}
	for name, c := range map[string]struct {
		event string
		code  twinrail.Code
		field string
	}{
		"no type":        {event(`"data":1`), twinrail.CodeBadRequest, "type"},
		"bad type":       {event(`"type":"No","data":1`), twinrail.CodeBadRequest, "type"},
		"no data":        {event(`"type":"t"`), twinrail.CodeBadRequest, "data"},
		"bad id":         {event(`"type":"t","data":1,"id":"a b"`), twinrail.CodeBadRequest, "id"},
		"no channel":     {`{"type":"t","data":1}`, twinrail.CodeBadRequest, "channel"},
		"presence":       {`{"channel":"presence","type":"t","data":1}`, twinrail.CodeBadRequest, "channel"},
		"no canvas":      {`{"channel":"commit","type":"t","data":1}`, twinrail.CodeContextMissing, "routing.canvas_id"},
		"bad key":        {`{"channel":"commit","type":"t","data":1,"routing":{"canvas_id":"c1","panel_id":"*"}}`, twinrail.CodeContextInvalid, "routing.panel_id"},
		"other tenant":   {`{"channel":"commit","type":"t","data":1,"routing":{"canvas_id":"c1","tenant_id":"t_other"}}`, twinrail.CodeContextMismatch, "routing.tenant_id"},
		"other context":  {`{"channel":"commit","type":"t","data":1,"routing":{"canvas_id":"c1","app_id":"other"}}`, twinrail.CodeContextConflict, "routing.app_id"},
		"other actor":    {`{"channel":"commit","type":"t","data":1,"routing":{"canvas_id":"c1","actor_id":"u_2"}}`, twinrail.CodeActorMismatch, "routing.actor_id"},
		"not granted":    {`{"channel":"chat","type":"t","data":1,"routing":{"thread_id":"th1"}}`, twinrail.CodeNotFound, ""},
		"other stream":   {`{"channel":"commit","type":"t","data":1,"routing":{"canvas_id":"c2"}}`, twinrail.CodeBadRequest, "routing"},
		"to nobody":      {event(`"type":"t","data":1,"to":[]`), twinrail.CodeBadRequest, "to"},
		"to no actor":    {event(`"type":"t","data":1,"to":["u_1","*"]`), twinrail.CodeBadRequest, "to[1]"},
		"no kind":        {`{"channel":"artifact","type":"t","data":{},"routing":{"canvas_id":"c1"}}`, twinrail.CodeBadRequest, "data.kind"},
		"unknown kind":   {`{"channel":"artifact","type":"t","data":{"kind":"x"},"routing":{"canvas_id":"c1"}}`, twinrail.CodeBadRequest, "data.kind"},
		"kind not there": {`{"channel":"artifact","type":"t","data":["kind","audit"],"routing":{"canvas_id":"c1"}}`, twinrail.CodeBadRequest, "data.kind"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := r.post(`{"events":[` + commit(1) + `,` + c.event + `,` + commit(2) + `]}`)
			want := "events[1]"
			if c.field != "" {
				want += "." + c.field
			}
			if p := problemOf(t, resp, c.code); p.Field != want && c.code != twinrail.CodeNotFound {
				t.Errorf("field %q, want %q", p.Field, want)
			}
		})
	}
	if events, _ := r.page(historyPath); len(events) != 0 {
		t.Errorf("%d events were stored", len(events))
	}
}

func TestExpectedSeq(t *testing.T) {
	r := newRig(t)
	expecting := func(seq int, id string) reply {
		return r.post(fmt.Sprintf(`{"expected_seq":%d,"events":[{"id":%q,"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":1}]}`, seq, id))
	}
	if resp := expecting(0, "a"); resp.status != http.StatusOK {
		t.Fatalf("0 of an empty stream: %d %s", resp.status, resp.body)
	}
	for _, seq := range []int{0, 2} {
		if p := problemOf(t, expecting(seq, "b"), twinrail.CodeSeqConflict); p.Field != "expected_seq" {
			t.Errorf("field %q", p.Field)
		}
	}
	if resp := expecting(1, "b"); resp.status != http.StatusOK {
		t.Fatalf("1 of a stream of one: %d %s", resp.status, resp.body)
	}
	if resp := expecting(0, "a"); resp.status != http.StatusOK || !strings.Contains(string(resp.body), `"duplicate":true`) {
		t.Errorf("a retry of what went through: %d %s", resp.status, resp.body)
	}
	if events, _ := r.page(historyPath); len(events) != 2 {
		t.Errorf("%d events, want 2", len(events))
	}
}

func TestDuplicates(t *testing.T) {
	r := newRig(t)
	event := func(canvas, id, data string) string {
		return fmt.Sprintf(`{"id":%q,"channel":"commit","type":"t","routing":{"canvas_id":%q},"data":%s}`, id, canvas, data)
	}
	first := r.publish(event("c1", "a", "1"))[0]
	again := r.publish(event("c1", "b", "2"), event("c1", "a", "1"))
	if again[0].Duplicate || !again[1].Duplicate || again[1].Seq != first.Seq || again[1].Cursor != first.Cursor || !again[1].Time.Equal(first.Time.Time) {
		t.Errorf("first %+v, again %+v", first, again)
	}
	resp := r.post(`{"events":[` + event("c1", "c", "3") + `,` + event("c1", "a", "4") + `]}`)
	if p := problemOf(t, resp, twinrail.CodeIDConflict); p.Field != "events[1].id" {
		t.Errorf("field %q", p.Field)
	}
	if other := r.publish(event("c2", "a", "4"))[0]; other.Duplicate || other.Seq != 1 {
		t.Errorf("the id in another stream: %+v", other)
	}
	if events, _ := r.page(historyPath); dataOf(events) != "1 2" {
		t.Errorf("stored %s, want 1 2", dataOf(events))
	}
	if published, duplicates := r.metric(`twinrail_events_published_total{channel="commit"}`), r.metric("twinrail_events_duplicate_total"); published != 3 || duplicates != 1 {
		t.Errorf("counted %v and %v duplicates, want 3 and 1", published, duplicates)
	}
}

// TestEventInheritsContext publishes with keys in the request's context that the
// event does not name.
func TestEventInheritsContext(t *testing.T) {
	r := newRig(t)
	resp := r.do("POST", publishPath+"&canvas_id=c1&panel_id=pa&thread_id=th1", `{"events":[{"channel":"artifact","type":"t","data":{"kind":"audit"}}]}`, as(r.token))
	if resp.status != http.StatusOK {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	if events, _ := r.page(historyPath); len(events) != 0 {
		t.Errorf("read without the audience: %+v", events)
	}
	events, _ := r.page(historyPath + "&panel_id=pa&thread_id=th1&channels=artifact")
	want := twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio",
		CanvasID: "c1", PanelID: "pa", ThreadID: "th1", ActorID: "u_1"}
	if len(events) != 1 || events[0].Routing != want || events[0].ActorType != twinrail.Human {
		t.Errorf("got %+v, want one routed %+v", events, want)
	}
}
