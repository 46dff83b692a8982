package probe_test

import (
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/probe"
)

// TestTwoOwners: what two broad tokens do not allow to try is skipped or noted, and
// nothing that a broad token may do is taken for a leak.
func TestTwoOwners(t *testing.T) {
	for _, second := range []struct {
		tenant, env string
		settles     twinrail.Key
	}{{"t_b", "dev", twinrail.KeyTenant}, {"t_a", "staging", twinrail.KeyEnv}} {
		t.Run(second.settles.String(), func(t *testing.T) {
			at := target(t)
			a, b := ownerToken(t, at, "t_a", "dev"), ownerToken(t, at, second.tenant, second.env)
			var err error
			if at.Tokens, err = probe.NewFixed(a, b); err != nil {
				t.Fatal(err)
			}
			report, err := probe.Run(t.Context(), at, probe.Options{
				Ways:        []string{"presence-snapshot", "presence-changes", "flags", "tickets", "cookies", "revocation"},
				Keys:        []twinrail.Key{twinrail.KeyTenant, twinrail.KeyEnv, twinrail.KeyWorkspace, twinrail.KeyPanel, twinrail.KeyActor},
				ChangeFlags: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range report.Cells {
				settled := c.Key == "tenant_id" || c.Key == "env" || c.Key == "actor_id"
				want := probe.Pass
				if c.Way == "revocation" || settled && c.Key != second.settles.String() {
					want = probe.Skipped
				}
				if c.Outcome != want || want == probe.Skipped && !strings.Contains(c.Detail, "needs") {
					t.Errorf("%s, %s: %s: %s", c.Way, c.Key, c.Outcome, c.Detail)
				}
			}
		})
	}
}

// TestFlagsNeedPermission: without it no flag is touched.
func TestFlagsNeedPermission(t *testing.T) {
	report, err := probe.Run(t.Context(), target(t), probe.Options{Ways: []string{"flags"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(report.Of(probe.Skipped)); n != len(twinrail.Keys()) {
		t.Errorf("%+v", report.Cells)
	}
}

func ownerToken(t *testing.T, at probe.Target, tenant, env string) string {
	t.Helper()
	token, err := at.Tokens.Token(probe.Want{TenantID: tenant, Env: env, ActorID: "u_owner", Role: twinrail.Owner})
	if err != nil {
		t.Fatal(err)
	}
	return token
}
