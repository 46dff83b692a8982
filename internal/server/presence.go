package server

import (
	"net/http"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

// maxPresenceLimit bounds a page of those present, and with that its bytes to some
// 3 MiB.
const maxPresenceLimit = 1000

// servePresence answers GET /v1/presence.
func (s *Server) servePresence(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	q := r.URL.Query()
	kind, err := presenceKind(ac, q.Get("stream"))
	if err != nil {
		return err
	}
	reader, err := ac.Reader(twinrail.Routing{}, kind, twinrail.ChannelsOf(twinrail.Presence))
	if err != nil {
		return err
	}
	limit, err := parseLimit(q, maxPresenceLimit, maxPresenceLimit)
	if err != nil {
		return err
	}
	after, err := presence.ParsePosition(q.Get("after"))
	if err != nil {
		return err
	}
	members, next := s.presence.Members(reader, after, limit)
	return writeJSON(w, twinrail.PresenceResponse{Members: members, Next: next.String()})
}

// presenceKind says of which stream the presence is asked for. Where the context
// names a canvas and a thread, one of them is an audience key.
func presenceKind(ac *auth.Context, stated string) (twinrail.Kind, error) {
	named := ac.Routing()
	switch {
	case stated == twinrail.CanvasStream.String():
		return twinrail.CanvasStream, nil
	case stated == twinrail.ThreadStream.String():
		return twinrail.ThreadStream, nil
	case stated != "":
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "stream", "must be canvas or thread")
	case named.CanvasID != "" && named.ThreadID != "":
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "stream", "the context names a canvas and a thread: say which is meant")
	case named.ThreadID != "":
		return twinrail.ThreadStream, nil
	}
	return twinrail.CanvasStream, nil
}
