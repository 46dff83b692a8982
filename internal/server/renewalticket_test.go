package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// TestRenewalByTicket: one that is for a rail renews what is on that, and nothing
// else.
func TestRenewalByTicket(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				own, other := "sse", "ws"
				if transport == "ws" {
					own, other = other, own
				}
				c := r.connect(transport, r.token)
				newer := r.issuer.Token(authtest.ExpiresIn(2 * time.Hour))
				problemOf(t, r.do("POST", renewalPath(c.id)+"&ticket="+r.ticket(newer, `{"rail":"`+other+`"}`), "", nil), twinrail.CodeNotFound)
				for _, scope := range []string{`{"rail":"` + own + `"}`, ""} {
					if resp := r.do("POST", renewalPath(c.id)+"&ticket="+r.ticket(newer, scope), "", nil); resp.status != 200 {
						t.Errorf("renewed with %q: %d %s", scope, resp.status, resp.body)
					}
				}
			})
		})
	}
}
