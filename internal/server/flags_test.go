package server

import (
	"net/http"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// of returns the query of t_acme's home as another tenant's.
func of(tenant string) string {
	return "?tenant_id=" + tenant + "&env=dev&workspace_id=w1&project_id=p1&app_id=studio"
}

// flag sends a request for a flag as somebody of the tenant.
func (r *rig) flag(method, name, tenant string, role twinrail.Role, body string) reply {
	r.t.Helper()
	path := twinrail.PathFlags
	if name != "" {
		path += "/" + name
	}
	return r.do(method, path+"?tenant_id="+tenant+"&env=dev", body, as(r.issuer.Token(authtest.Tenant(tenant), authtest.Role(role))))
}

// TestRailSwitchedOff switches the rails off under live connections: they end and
// are told not to come back; those of another tenant go on.
func TestRailSwitchedOff(t *testing.T) {
	r := newRig(t)
	other := r.issuer.Token(authtest.Tenant("t_other"))
	sse, ws := r.tail(canvasPath), r.peer()
	sse.open()
	sse.toLive()
	ws.live("a")
	otherWS := r.upgrade(twinrail.PathWS+of("t_other"), other)
	otherWS.want(twinrail.OpWelcome)

	r.setFlag("sse_enabled", "false")
	var end twinrail.End
	unmarshal(t, []byte(sse.want(twinrail.SSEEnd).data), &end)
	if end != (twinrail.End{Code: twinrail.CodeRailDisabled}) {
		t.Errorf("end %+v", end)
	}
	sse.ends()
	if resp := r.do("GET", canvasPath, "", append(as(r.token), "Last-Event-ID", "any")); resp.status != http.StatusNoContent || len(resp.body) > 0 {
		t.Errorf("on its return: %d %s", resp.status, resp.body)
	}
	problemOf(t, r.get(canvasPath), twinrail.CodeRailDisabled)
	ws.say(`{"op":"ping"}`)
	ws.want(twinrail.OpPong)

	r.setFlag("ws_enabled", "false")
	ws.fails(twinrail.CodeRailDisabled, 4014)
	problemOf(t, r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...)), twinrail.CodeRailDisabled)
	otherWS.say(`{"op":"ping"}`)
	otherWS.want(twinrail.OpPong)
	r.commits(0, 1) // publishing is no rail

	// The platform switches it off for all.
	if resp := r.flag("PUT", "ws_enabled", "t_0", twinrail.Admin, `{"value":false,"overridable":false}`); resp.status != http.StatusOK {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	otherWS.fails(twinrail.CodeRailDisabled, 4014)

	r.setFlag("sse_enabled", "true")
	r.tail(canvasPath).open()
}

// TestFlagsOverHTTP is who may do what.
func TestFlagsOverHTTP(t *testing.T) {
	r := newRig(t)
	const tenant = "t_acme"
	list := func() map[string]twinrail.Flag {
		t.Helper()
		resp := r.flag("GET", "", tenant, twinrail.Owner, "")
		var got twinrail.FlagsResponse
		unmarshal(t, resp.body, &got)
		flags := make(map[string]twinrail.Flag)
		for _, f := range got.Flags {
			flags[f.Name] = f
		}
		return flags
	}
	if f := list()["gesture_rate"]; len(list()) != 5 || string(f.Value) != "30" || f.Source != twinrail.FlagBuiltIn || !f.Overridable {
		t.Errorf("at the start: %+v", list())
	}
	for _, role := range []twinrail.Role{twinrail.Member, twinrail.Viewer} {
		for method, body := range map[string]string{"GET": "", "PUT": `{"value":true}`, "DELETE": ""} {
			name := "replay"
			if method == "GET" {
				name = ""
			}
			problemOf(t, r.flag(method, name, tenant, role, body), twinrail.CodeNotFound)
		}
	}
	for body, field := range map[string]string{
		`{"value":1}`: "value", `{}`: "value", `{"value":true,"for":"t_b"}`: "for", `{"value":true,"overridable":true}`: "overridable",
	} {
		if p := problemOf(t, r.flag("PUT", "replay", tenant, twinrail.Owner, body), twinrail.CodeBadRequest); p.Field != field {
			t.Errorf("%s: field %q, want %q", body, p.Field, field)
		}
	}
	problemOf(t, r.flag("PUT", "nothing", tenant, twinrail.Owner, `{"value":true}`), twinrail.CodeNotFound)
	r.flag("PUT", "gesture_rate", "t_0", twinrail.Owner, `{"value":10}`)
	r.setFlag("gesture_rate", "5")
	if f := list()["gesture_rate"]; string(f.Value) != "5" || f.Source != twinrail.FlagFromTenant {
		t.Errorf("overridden: %+v", f)
	}
	if resp := r.flag("DELETE", "gesture_rate", tenant, twinrail.Admin, ""); resp.status != http.StatusOK {
		t.Errorf("unset: %d %s", resp.status, resp.body)
	}
	if f := list()["gesture_rate"]; string(f.Value) != "10" || f.Source != twinrail.FlagFromTenant0 {
		t.Errorf("unset: %+v", f)
	}
	r.flag("PUT", "gesture_rate", "t_0", twinrail.Owner, `{"value":10,"overridable":false}`)
	if p := problemOf(t, r.flag("PUT", "gesture_rate", tenant, twinrail.Owner, `{"value":5}`), twinrail.CodeBadRequest); p.Field != "name" {
		t.Errorf("not overridable: %+v", p)
	}
}

// TestFlagsByTicket: what an administrator lends changes no flags.
func TestFlagsByTicket(t *testing.T) {
	r := newRig(t)
	owner := r.issuer.Token(authtest.Role(twinrail.Owner))
	var ticket twinrail.TicketResponse
	unmarshal(t, r.do("POST", twinrail.PathTickets+"?tenant_id=t_acme&env=dev", "", as(owner)).body, &ticket)
	problemOf(t, r.do("PUT", flagsPath("replay")+"&ticket="+ticket.Ticket, `{"value":false}`, header{"Content-Type", "application/json"}), twinrail.CodeNotFound)
	r.setFlag("replay", "false") // by the owner's own
}
