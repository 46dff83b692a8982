package server

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/table"
)

// TestRatesOfEnvsAreApart has a tenant be over a rate in one env: in another one the
// same actor has all of it.
func TestRatesOfEnvsAreApart(t *testing.T) {
	gestures := func(n int) string {
		return `{"events":[` + strings.Repeat(gesture("pointer", "", "1")+",", n-1) + gesture("pointer", "", "1") + `]}`
	}
	admin := func(c caller, method, flag, body string) reply {
		c.t.Helper()
		token := c.issuer.Token(authtest.Tenant(c.tenant), authtest.Env(c.env), authtest.Role(twinrail.Admin))
		return c.do(method, c.at(flagsPath(flag)), body, as(token))
	}
	for name, c := range map[string]struct {
		limit string
		ask   func(c caller) reply // takes all that may come at once
	}{
		"events": {"publishes", func(c caller) reply {
			return c.ask("POST", publishPath, `{"events":[`+strings.Repeat(commit(1)+",", maxEvents-1)+commit(1)+`]}`)
		}},
		"bytes": {"bytes", func(c caller) reply {
			return c.ask("POST", publishPath, `{"events":[`+strings.Replace(commit(1), `"data":1`, `"data":"`+strings.Repeat("x", 1500)+`"`, 1)+`]}`)
		}},
		"joins":   {"joins", func(c caller) reply { c.ask("POST", ticketsPath, ""); return c.ask("POST", ticketsPath, "") }},
		"changes": {"changes", func(c caller) reply { admin(c, "DELETE", "replay", ""); return admin(c, "DELETE", "replay", "") }},
		"gestures of an actor": {"gestures", func(c caller) reply {
			admin(c, "PUT", "gesture_fanout", `{"value":true}`)
			return c.ask("POST", publishPath, gestures(30))
		}},
		"gestures": {"gestures", func(c caller) reply {
			admin(c, "PUT", "gesture_fanout", `{"value":true}`)
			admin(c, "PUT", "gesture_rate", `{"value":100}`)
			return c.ask("POST", publishPath, gestures(100))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := authtest.New(t)
				r := newBubbleRigOf(t, issuer, pages(issuer, new(table.Memory), new(table.Memory)), func(o *Options) {
					o.PublishRate, o.ChangeRate, o.JoinRate, o.MaxJoins = 1, 1, 1, 1
					o.PublishBytes, o.MaxBody, o.MaxFrame = 1, 2000, 1024
					if name != "bytes" {
						o.PublishBytes, o.MaxBody, o.MaxFrame = -1, 0, 0
					}
				})
				dev, prod := r.caller("t_acme", "dev"), r.caller("t_acme", "prod")
				if resp := c.ask(dev); resp.status != http.StatusOK {
					t.Fatalf("%d %s", resp.status, resp.body)
				}
				if passes(t, c.limit, c.ask(dev)) {
					t.Fatal("in its env, it is not held to its rate")
				}
				if !passes(t, c.limit, c.ask(prod)) {
					t.Error("in another env, it is held up")
				}
			})
		})
	}
}
