package journal_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

func TestBatchRefusesWhatIsNotKept(t *testing.T) {
	issuer := authtest.New(t)
	at := twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", ActorID: "u_1",
	}
	presenter, err := issuer.Context("t_acme", "u_1").Presenter(at, twinrail.CanvasStream)
	if err != nil {
		t.Fatal(err)
	}
	commit := issuer.Writer(at, twinrail.Commit)
	for _, tt := range []struct {
		writer auth.Writer
		want   error
	}{
		{commit, nil},
		{issuer.Writer(at, twinrail.Artifact), nil},
		{issuer.Writer(at, twinrail.Gesture), journal.ErrBatch},
		{presenter, journal.ErrBatch},
	} {
		event := twinrail.Event{ID: "e1", Type: "a", Time: time.Now(), Data: []byte("1")}
		batch := []journal.Record{journal.NewRecord(commit, event), journal.NewRecord(tt.writer, event)}
		if _, err := journal.Batch(batch); !errors.Is(err, tt.want) {
			t.Errorf("a batch with an event on %s: %v", tt.writer.Channel(), err)
		}
	}
}
