package probe_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/probe"
	"github.com/twinrail/twinrail/internal/server"
	"github.com/twinrail/twinrail/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// target is a server on a loopback port.
func target(t *testing.T) probe.Target {
	t.Helper()
	secret := bytes.Repeat([]byte("k"), auth.MinSecret)
	verifier, err := auth.NewVerifier(auth.VerifierOptions{Keys: []auth.Key{{Material: secret}}})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := auth.NewGate(auth.GateOptions{Verifier: verifier, InsecureCookies: true})
	if err != nil {
		t.Fatal(err)
	}
	flags, err := feature.Open(new(table.Memory), feature.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{Journal: journal.NewMemory(journal.MemoryOptions{}), Gate: gate, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		web.Close()
		s.Close()
	})
	tokens, err := probe.NewMinted(probe.Signer{TenantID: "t_a", Secret: secret}, probe.Signer{TenantID: "t_b", Secret: secret}, "dev", "staging")
	if err != nil {
		t.Fatal(err)
	}
	at := probe.Target{URL: web.URL, Tokens: tokens}
	for _, side := range []probe.Side{probe.SideA, probe.SideB} {
		for _, env := range []string{"dev", "staging"} {
			allowGestures(t, at, tokens.Base(side).TenantID, env)
		}
	}
	return at
}

// allowGestures switches gestures on.
func allowGestures(t *testing.T, at probe.Target, tenant, env string) {
	t.Helper()
	token, err := at.Tokens.Token(probe.Want{TenantID: tenant, Env: env, ActorID: "u_owner", Role: twinrail.Owner})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, at.URL+twinrail.PathFlags+"/gesture_fanout?tenant_id="+tenant+"&env="+env, strings.NewReader(`{"value":true}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("gesture_fanout: %s", resp.Status)
	}
}

