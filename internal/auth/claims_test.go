package auth

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

func TestParseGrant(t *testing.T) {
	text := `{"workspace_id":"w1","project_id":"*","app_id":"studio","surface_id":"s","canvas_id":"c1",
		"projection_id":"p","panel_id":"*","thread_id":"t","can":["commit:read","gesture:*","session:revoke","*"]}`
	want := twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "*", AppID: "studio", SurfaceID: "s", CanvasID: "c1",
		ProjectionID: "p", PanelID: "*", ThreadID: "t", Can: []string{"commit:read", "gesture:*", "session:revoke", "*"},
	}
	got, err := ParseGrant([]byte(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// TestGrantsAreStrict says that nothing in a grant is passed over, by the
// parser or by the verifier that uses it.
func TestGrantsAreStrict(t *testing.T) {
	many := strings.Repeat(`"commit:read",`, maxPermissions)
	tests := map[string]string{
		"a misspelt key":           `{"workspace_id":"w","panle_id":"x","can":["*"]}`,
		"a key of another case":    `{"workspace_id":"w","Panel_id":"x","can":["*"]}`,
		"an empty key":             `{"workspace_id":"w","panel_id":"","can":["*"]}`,
		"a null key":               `{"workspace_id":"w","panel_id":null,"can":["*"]}`,
		"a key that is a number":   `{"workspace_id":"w","panel_id":1,"can":["*"]}`,
		"a key that is a list":     `{"workspace_id":"w","panel_id":["x"],"can":["*"]}`,
		"a key twice":              `{"panel_id":"x","panel_id":"*","can":["*"]}`,
		"a pattern":                `{"workspace_id":"w*","can":["*"]}`,
		"two stars":                `{"workspace_id":"**","can":["*"]}`,
		"the tenant":               `{"tenant_id":"t_acme","can":["*"]}`,
		"the env":                  `{"env":"dev","can":["*"]}`,
		"the actor":                `{"actor_id":"u_1","can":["*"]}`,
		"no can":                   `{"workspace_id":"w"}`,
		"can is null":              `{"workspace_id":"w","can":null}`,
		"can is empty":             `{"workspace_id":"w","can":[]}`,
		"can is a string":          `{"workspace_id":"w","can":"*"}`,
		"can holds null":           `{"workspace_id":"w","can":[null]}`,
		"can holds a number":       `{"workspace_id":"w","can":[1]}`,
		"Can":                      `{"workspace_id":"w","Can":["*"]}`,
		"too many permissions":     `{"workspace_id":"w","can":[` + many + `"commit:read"]}`,
		"no channel":               `{"workspace_id":"w","can":["commits:read"]}`,
		"any channel":              `{"workspace_id":"w","can":["*:read"]}`,
		"no right":                 `{"workspace_id":"w","can":["commit:delete"]}`,
		"a channel alone":          `{"workspace_id":"w","can":["commit"]}`,
		"a channel and no right":   `{"workspace_id":"w","can":["commit:"]}`,
		"three parts":              `{"workspace_id":"w","can":["commit:read:write"]}`,
		"a space":                  `{"workspace_id":"w","can":["commit: read"]}`,
		"one of two unknown":       `{"workspace_id":"w","can":["commit:read","commit:Read"]}`,
		"an unknown session right": `{"workspace_id":"w","can":["session:*"]}`,
		"a list":                   `[]`,
		"a string":                 `"*"`,
		"null":                     `null`,
	}
	v := secretVerifier(t)
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if g, err := ParseGrant([]byte(text)); err == nil {
				t.Errorf("parsed as %+v", g)
			}
			good := json.RawMessage(`{"workspace_id":"w","can":["*"]}`)
			grants := []json.RawMessage{good, json.RawMessage(text)}
			wantCode(t, v, signHS(t, with(validClaims(), "grants", grants)), refused)
		})
	}
	for _, text := range []string{``, `{`, `{"can":["*"]}x`} {
		if g, err := ParseGrant([]byte(text)); err == nil {
			t.Errorf("%q parsed as %+v", text, g)
		}
	}
	for name, grants := range map[string]any{
		"an object": map[string]any{"can": []string{"*"}}, "a string": "*", "true": true,
		"too many": repeatGrant(maxGrants + 1),
	} {
		t.Run("grants is "+name, func(t *testing.T) {
			wantCode(t, v, signHS(t, with(validClaims(), "grants", grants)), refused)
		})
	}
	for name, grants := range map[string]any{"null": null, "empty": []any{}, "as many as may be": repeatGrant(maxGrants)} {
		t.Run("grants is "+name, func(t *testing.T) {
			wantCode(t, v, signHS(t, with(validClaims(), "grants", grants)), accepted)
		})
	}
}

func repeatGrant(n int) []any {
	grants := make([]any, n)
	for i := range grants {
		grants[i] = map[string]any{"can": []string{"*"}}
	}
	return grants
}

func TestFullGrant(t *testing.T) {
	full := FullGrant()
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := ParseGrant(text); err != nil || !reflect.DeepEqual(parsed, full) {
		t.Errorf("%s parses as %+v, %v", text, parsed, err)
	}
	everywhere := twinrail.Routing{
		TenantID: "t_a", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a",
		SurfaceID: "s", CanvasID: "c", ProjectionID: "j", PanelID: "l", ThreadID: "t",
	}
	bare := everywhere
	bare.SurfaceID, bare.ProjectionID, bare.PanelID = "", "", ""
	for _, kind := range []twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream} {
		for _, r := range []twinrail.Routing{everywhere, bare} {
			a, err := r.Address(kind)
			if err != nil {
				t.Fatal(err)
			}
			if !full.Covers(a) {
				t.Errorf("does not cover %+v", a)
			}
		}
	}
	for _, channel := range []twinrail.Channel{"commit", "artifact", "gesture", "chat", "tool", "presence"} {
		for _, right := range []twinrail.Right{twinrail.Read, twinrail.Write} {
			if !full.Allows(channel, right) {
				t.Errorf("does not allow %s:%s", channel, right)
			}
		}
	}
}
