package probe

import (
	"context"

	"github.com/twinrail/twinrail"
)

// sseLive: what is published while both follow the SSE rail.
func sseLive(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.CanvasStream, "commit:read", "artifact:read")
	if err != nil {
		return err
	}
	for _, channel := range []twinrail.Channel{twinrail.Commit, twinrail.Artifact} {
		err := w.live(ctx, s, channel, func(p *party) (follower, error) { return p.mustFollow(ctx, sse(p.at(), nil)) })
		if err != nil {
			return err
		}
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.askSSE(ctx, at, nil) })
}
