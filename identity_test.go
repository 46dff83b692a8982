package twinrail_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

func TestIdentityEnums(t *testing.T) {
	for v, want := range map[string]bool{"human": true, "agent": true, "system": true, "": false, "Human": false, "owner": false} {
		if got := twinrail.ActorType(v).Valid(); got != want {
			t.Errorf("actor type %q: %t", v, got)
		}
	}
	for v, want := range map[string]bool{"owner": true, "admin": true, "member": true, "viewer": true, "": false, "Owner": false, "human": false} {
		if got := twinrail.Role(v).Valid(); got != want {
			t.Errorf("role %q: %t", v, got)
		}
	}
}

func TestPermissions(t *testing.T) {
	channels := []string{"commit", "artifact", "gesture", "chat", "tool", "presence"}
	valid := map[string]bool{"*": true, "session:revoke": true}
	for _, c := range channels {
		for _, right := range []string{"read", "write", "*"} {
			valid[c+":"+right] = true
		}
	}
	asked := []string{"", ":", "*:*", "*:read", "commit", "commit:", ":read", "commit:read:", "commit:Read", "session:*", "session:read", "session", " *"}
	for p := range valid {
		asked = append(asked, p, p+" ", strings.ToUpper(p[:1])+p[1:])
	}
	for _, p := range asked {
		if got := twinrail.ValidPermission(p); got != valid[p] {
			t.Errorf("%q: %t", p, got)
		}
		grant := twinrail.Grant{Can: []string{"session:revoke", p}}
		for _, c := range channels {
			for _, right := range []twinrail.Right{twinrail.Read, twinrail.Write} {
				want := p == "*" || p == c+":*" || p == c+":"+string(right)
				if got := grant.Allows(twinrail.Channel(c), right); got != want {
					t.Errorf("%q allows %s:%s: %t", p, c, right, got)
				}
			}
		}
	}
}

// TestCoversNothing says that a key left out of both is not the same in both.
func TestCoversNothing(t *testing.T) {
	for _, kind := range kinds {
		if (&twinrail.Grant{}).Covers(twinrail.Address{Home: twinrail.Home{Kind: kind}}) {
			t.Errorf("a grant of nothing covers a %s without a name", kind)
		}
	}
}

// TestCovers compares Grant.Covers with the contract's words: the same value or
// "*" for each home key, and for each audience key that the grant mentions.
func TestCovers(t *testing.T) {
	granted, asked := rapid.SampledFrom([]string{"a", "b", "*", ""}), rapid.SampledFrom([]string{"a", "b", ""})
	rapid.Check(t, func(t *rapid.T) {
		g := twinrail.Grant{WorkspaceID: "a", ProjectID: "a", AppID: "a", CanvasID: "a", ThreadID: "a"}
		stated := twinrail.Routing{TenantID: "t_a", Env: "dev", WorkspaceID: "a", ProjectID: "a", AppID: "a", CanvasID: "a", ThreadID: "a"}
		inGrant := map[twinrail.Key]*string{
			twinrail.KeyWorkspace: &g.WorkspaceID, twinrail.KeyProject: &g.ProjectID, twinrail.KeyApp: &g.AppID,
			twinrail.KeySurface: &g.SurfaceID, twinrail.KeyCanvas: &g.CanvasID, twinrail.KeyProjection: &g.ProjectionID,
			twinrail.KeyPanel: &g.PanelID, twinrail.KeyThread: &g.ThreadID,
		}
		for _, k := range twinrail.Keys() { // few differ, or hardly any grant covers
			if key, ok := inGrant[k]; ok && rapid.IntRange(0, 2).Draw(t, "change "+k.String()) == 0 {
				*key = granted.Draw(t, "granted "+k.String())
				stated.Set(k, asked.Draw(t, "asked "+k.String()))
			}
		}
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		home := map[twinrail.Key]bool{twinrail.KeyWorkspace: true, twinrail.KeyProject: true, twinrail.KeyApp: true}
		home[twinrail.KeyCanvas], home[twinrail.KeyThread] = kind == twinrail.CanvasStream, kind == twinrail.ThreadStream

		address, err := stated.Address(kind)
		if err != nil {
			return // a home key is missing: no address
		}
		want := true
		for k, key := range inGrant {
			mentioned := *key != ""
			if (mentioned || home[k]) && *key != "*" && (*key != stated.Get(k) || !mentioned) {
				want = false
			}
		}
		if got := g.Covers(address); got != want {
			t.Errorf("%+v covers %+v: %t", g, address, got)
		}
	})
}
