package authtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

func TestIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := authtest.New(t)
		at := twinrail.Routing{
			TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio",
			CanvasID: "c1", PanelID: "x", ActorID: "u_7",
		}
		home, err := at.Home(twinrail.CanvasStream)
		if err != nil {
			t.Fatal(err)
		}
		reader := issuer.Reader(at, twinrail.CanvasStream, twinrail.Commit, twinrail.Gesture)
		if !reader.Admits(home.Key(), twinrail.Gesture, twinrail.Audience{PanelID: "x"}, []string{"u_7"}) {
			t.Errorf("the reader does not admit what is for it")
		}
		writer := issuer.Writer(at, twinrail.Commit)
		if writer.Key() != home.Key() || writer.Address().Audience.PanelID != "x" {
			t.Errorf("the writer is for %v", writer.Address())
		}
		issuer.Context("t_other", "u_1")

		issued := time.Now().Add(-time.Minute)
		id := issuer.Principal(authtest.TokenID("j1"), authtest.IssuedAt(issued), authtest.ExpiresIn(time.Minute)).Identity()
		if id.TokenID != "j1" || !id.IssuedAt.Equal(issued) || !id.ExpiresAt.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("the token says %+v", id)
		}

		token := issuer.Token(authtest.ExpiresIn(time.Minute))
		time.Sleep(time.Minute - time.Nanosecond)
		if _, err := issuer.Verifier().Verify(context.Background(), token); err != nil {
			t.Errorf("just before it expires: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := issuer.Verifier().Verify(context.Background(), token); !errors.Is(err, &twinrail.Error{Code: twinrail.CodeCredentialExpired}) {
			t.Errorf("once it has expired: %v", err)
		}
		if _, err := issuer.Verifier().Verify(context.Background(), issuer.Token(authtest.ExpiresIn(-time.Second))); !errors.Is(err, &twinrail.Error{Code: twinrail.CodeCredentialExpired}) {
			t.Errorf("a token that was made expired: %v", err)
		}
	})
}
