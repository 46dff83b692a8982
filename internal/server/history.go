package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

const (
	defaultHistoryLimit = 100
	maxHistoryLimit     = 1000
	// historyBytes and historyReads bound one page: where events are large, or
	// most are for others, it comes out shorter, and next goes on from there.
	historyBytes = 4 << 20
	historyReads = 16
	historyChunk = 256 << 10
)

// serveHistory answers GET /v1/history.
func (s *Server) serveHistory(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	q := r.URL.Query()
	reader, err := historyReader(ac, q)
	if err != nil {
		return err
	}
	kinds, err := parseKinds(q, reader.Channels())
	if err != nil {
		return err
	}
	limit := defaultHistoryLimit
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxHistoryLimit {
			return twinrail.Errorf(twinrail.CodeBadRequest, "limit", "must be 1 to %d", maxHistoryLimit)
		}
	}
	h, err := s.readHistory(r.Context(), ac, reader, kinds, q.Get("after"), limit)
	if err != nil {
		return err
	}
	return writeHistory(w, h.events, h.next, h.bounds)
}

// history is what a page is made of.
type history struct {
	events [][]byte
	next   twinrail.Cursor
	bounds journal.Bounds
}

// readHistory waits its turn among the reads of the tenant.
func (s *Server) readHistory(ctx context.Context, ac *auth.Context, r auth.Reader, kinds kindFilter, after string, limit int) (h history, err error) {
	done, err := s.engine.shares.takeRead(ctx, tenantOf(ac))
	if err != nil {
		return h, err
	}
	defer done()
	if h.bounds, err = s.opts.Journal.Bounds(ctx, r); err != nil {
		return h, err
	}
	replay := s.flagsOf(ac).Replay
	if !replay {
		h.bounds.Oldest = h.bounds.Head
	}
	h.next, err = s.historyStart(ctx, r, after, h.bounds)
	if err == nil && replay { // else what is there was appended since the head was asked for
		h.events, h.next, err = s.page(ctx, r, kinds, h.next, limit)
	}
	return h, err
}

// from returns where a subscriber of ac's starts that gave the cursor.
func (s *Server) from(ac *auth.Context, cursor string) hub.From {
	return hub.From{Cursor: cursor, NoReplay: !s.flagsOf(ac).Replay}
}

// historyReader authorizes reading the stream that the context names. Where that
// could be a canvas as well as a thread, the channels tell.
func historyReader(ac *auth.Context, q url.Values) (auth.Reader, error) {
	channels := twinrail.ChannelsOf(twinrail.Commit, twinrail.Artifact, twinrail.Chat, twinrail.Tool)
	list := q.Get("channels")
	if list != "" {
		var err error
		if channels, err = parseChannels(list); err != nil {
			return auth.Reader{}, err
		}
	}
	stated := ac.Routing()
	kind := twinrail.CanvasStream
	switch {
	case list != "" && !channels.Has(twinrail.Commit) && !channels.Has(twinrail.Artifact),
		list == "" && stated.CanvasID == "" && stated.ThreadID != "":
		kind = twinrail.ThreadStream
	case list == "" && stated.CanvasID != "" && stated.ThreadID != "":
		return auth.Reader{}, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "with both a canvas and a thread given, say whose by naming channels")
	}
	for _, ch := range channels.Channels() {
		if list != "" && (!ch.In(kind) || !ch.Journaled()) {
			return auth.Reader{}, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must be commit and artifact, or chat and tool")
		}
	}
	if list != "" {
		return ac.Reader(twinrail.Routing{}, kind, channels)
	}
	return ac.ReaderOfAny(twinrail.Routing{}, kind, channels)
}

// historyStart returns the position that after names. A void cursor is answered
// 410, with the one code, and which of the two it was as detail.
func (s *Server) historyStart(ctx context.Context, r auth.Reader, after string, b journal.Bounds) (twinrail.Cursor, error) {
	if after == "" || after == twinrail.CursorEarliest {
		return b.Oldest, nil
	}
	c, err := twinrail.ParseCursor(after)
	if err != nil {
		return c, voidCursor(twinrail.CodeCursorUnknown)
	}
	switch _, err := s.opts.Journal.Seek(ctx, r, c); {
	case errors.Is(err, journal.ErrExpired), err == nil && c.Seq < b.Oldest.Seq:
		return c, voidCursor(twinrail.CodeCursorExpired)
	case errors.Is(err, journal.ErrUnknown):
		return c, voidCursor(twinrail.CodeCursorUnknown)
	default:
		return c, err
	}
}

// voidCursor is the answer, to whoever can read a status, to a cursor that is
// void for the given reason.
func voidCursor(reason twinrail.Code) error {
	return twinrail.Errorf(twinrail.CodeCursorExpired, "", "%s: %s", reason, reason.Info().Title)
}

// page reads up to limit events that are meant for r, and are of the kinds that it
// wants.
func (s *Server) page(ctx context.Context, r auth.Reader, kinds kindFilter, after twinrail.Cursor, limit int) (events [][]byte, next twinrail.Cursor, err error) {
	next = after
	for bytes, reads := 0, 0; len(events) < limit && bytes < historyBytes && reads < historyReads; reads++ {
		page, err := s.opts.Journal.Read(ctx, r, next.Seq, historyChunk)
		if err != nil {
			return nil, next, err
		}
		if page.Gap {
			// Trimmed since the position was checked.
			return nil, next, voidCursor(twinrail.CodeCursorExpired)
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			if len(events) == limit {
				return events, next, nil
			}
			if !r.Owns(e.Owner) {
				return nil, next, hub.ErrForeign
			}
			next = e.Cursor
			if r.Admits(e.Owner, e.Channel, e.Audience, e.To) && (kinds == 0 || kinds.wants(e.Channel, labelEntry(e))) {
				events = append(events, appendEvent(nil, e))
				bytes += len(events[len(events)-1])
			}
		}
		if !page.More {
			break
		}
	}
	return events, next, nil
}

// writeHistory writes a page by hand, since encoding/json would not keep the
// events byte for byte.
func writeHistory(w http.ResponseWriter, events [][]byte, next twinrail.Cursor, b journal.Bounds) error {
	out := []byte(`{"events":[`)
	for i, e := range events {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, e...)
	}
	out = append(out, `],"next":"`+next.String()+`","oldest":"`+b.Oldest.String()+`","head":"`+b.Head.String()+"\"}\n"...)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(out); err != nil {
		return abandoned(err)
	}
	return nil
}
