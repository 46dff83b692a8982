package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

func TestCORS(t *testing.T) {
	const ours = "https://app.example.com"
	r := newRig(t, func(o *Options) { o.AllowedOrigins = []string{ours, "http://localhost:3000"} })
	for origin, allowed := range map[string]bool{
		ours: true, "http://localhost:3000": true,
		"https://app.example.com:443": false, "http://app.example.com": false, "https://APP.example.com": false,
		"https://x.app.example.com": false, "https://app.example.com.evil.org": false, "null": false, "*": false,
	} {
		for name, resp := range map[string]reply{
			"history":   r.do("GET", historyPath, "", append(as(r.token), "Origin", origin)),
			"problem":   r.do("GET", historyPath, "", header{"Origin", origin}),
			"preflight": r.do("OPTIONS", publishPath, "", header{"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-tenant-id"}),
		} {
			got, want, credentials := resp.header.Get("Access-Control-Allow-Origin"), "", ""
			if allowed {
				want, credentials = origin, "true"
			}
			if got != want || !strings.Contains(strings.Join(resp.header.Values("Vary"), ","), "Origin") || resp.header.Get("Access-Control-Allow-Credentials") != credentials {
				t.Errorf("%s from %s: headers %v", name, origin, resp.header)
			}
			if name != "preflight" {
				continue
			}
			if resp.status != http.StatusNoContent || (resp.header.Get("Access-Control-Allow-Methods") == "POST") != allowed {
				t.Errorf("preflight from %s: %d %v", origin, resp.status, resp.header)
			}
			for _, name := range []string{"Authorization", "Last-Event-ID", "X-Tenant-Id", "X-Actor-Id", "Traceparent"} {
				if strings.Contains(resp.header.Get("Access-Control-Allow-Headers"), name) != allowed {
					t.Errorf("preflight from %s: %s in %v", origin, name, resp.header)
				}
			}
		}
	}
	c := r.tail(canvasPath, "Origin", ours)
	if got := c.resp.Header.Get("Access-Control-Allow-Origin"); got != ours {
		t.Errorf("SSE: Access-Control-Allow-Origin %q", got)
	}
	both := r.do("OPTIONS", twinrail.PathSession, "", header{"Origin", ours, "Access-Control-Request-Method", "DELETE"})
	if got := both.header.Get("Access-Control-Allow-Methods"); got != "DELETE, POST" {
		t.Errorf("a preflight for a path of two methods allows %q", got)
	}
	// An OPTIONS that is no preflight is a method like any other.
	problemOf(t, r.do("OPTIONS", publishPath, "", header{"Origin", ours}), twinrail.CodeMethodNotAllowed)
	none := newRig(t)
	resp := none.do("GET", historyPath, "", append(as(none.token), "Origin", ours))
	if resp.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("with no origins allowed: %v", resp.header)
	}
}

func (r *rig) operator(path string) (int, string) {
	w := httptest.NewRecorder()
	r.server.AdminHandler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestAdmin(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
		if status, body := r.operator(path); status != http.StatusOK || body == "" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	for _, path := range []string{"/", publishPath, "/v1/ws"} {
		if status, _ := r.operator(path); status != http.StatusNotFound {
			t.Errorf("%s on the operators' interface: %d", path, status)
		}
	}
	if err := r.server.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK} {
		if status, _ := r.operator(path); status != want {
			t.Errorf("%s while draining: %d", path, status)
		}
	}
}

// TestMetrics makes traffic with keys that stand out: the figures have moved, and
// the keys are nowhere in them.
func TestMetrics(t *testing.T) {
	r := newRig(t)
	query := "?tenant_id=t_acme&env=dev&workspace_id=SECRETw&project_id=SECRETp&app_id=SECRETa"
	c := r.tail(twinrail.PathSSECanvases + "SECRETc" + query)
	c.open()
	c.toLive()
	p := r.upgrade(twinrail.PathWS+query, r.token)
	p.want(twinrail.OpWelcome)
	p.say(`{"op":"join","sub":"SECRETs","routing":{"thread_id":"SECRETt"}}`)
	p.want(twinrail.OpJoined)
	p.want(twinrail.OpLive)
	body := `{"events":[{"id":"SECRETe","channel":"commit","type":"secret","routing":{"canvas_id":"SECRETc"},"data":1}]}`
	for range 2 {
		r.do("POST", twinrail.PathPublish+query, body, as(r.token))
	}
	c.event()
	p.say(`{"op":"publish","events":[{"channel":"chat","type":"secret","routing":{"thread_id":"SECRETt"},"data":1}]}`)
	p.published("SECRETs", 1)
	problemOf(t, r.do("GET", twinrail.PathSSECanvases+"SECRETc"+query, "", nil), twinrail.CodeCredentialMissing)
	p.say(`{"op":"leave","sub":"SECRETx"}`)
	p.wantError(twinrail.CodeBadRequest, "")
	_ = p.nc.Close()
	eventually(t, "the WebSocket is gone", func() bool { return r.metric(`twinrail_connections{rail="ws"}`) == 0 })
	for name, want := range map[string]float64{
		`twinrail_connections{rail="sse"}`:                     1,
		`twinrail_connections_opened_total{rail="ws"}`:         1,
		`twinrail_connections_closed_total{code="",rail="ws"}`: 1,
		`twinrail_subscriptions`:                               1,
		`twinrail_events_published_total{channel="commit"}`:    1,
		`twinrail_events_published_total{channel="chat"}`:      1,
		`twinrail_events_duplicate_total`:                      1,
		`twinrail_events_delivered_total{rail="sse"}`:          1,
		`twinrail_events_delivered_total{rail="ws"}`:           1,
		`twinrail_errors_total{code="credential_missing"}`:     1,
		`twinrail_errors_total{code="bad_request"}`:            1,
		`twinrail_isolation_violations_total`:                  0,
	} {
		if got := r.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if r.metric("twinrail_sent_bytes_total") == 0 {
		t.Error("no bytes were counted")
	}
	_, text := r.operator("/metrics")
	for _, key := range []string{"SECRET", "secret", "t_acme", "u_1"} {
		if strings.Contains(text, key) {
			t.Errorf("%s is in the metrics", key)
		}
	}
	if !strings.Contains(text, "twinrail_append_seconds_count 3") {
		t.Errorf("appends were not timed:\n%s", text)
	}
}
