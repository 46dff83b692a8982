package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime"
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
	// historyKept is the most memory of a page that is kept for the next one.
	historyKept = 2 << 20
	// historyTries bounds how often a page from the oldest event on is begun anew
	// because that was trimmed.
	historyTries = 8
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
	limit, err := parseLimit(q, defaultHistoryLimit, maxHistoryLimit)
	if err != nil {
		return err
	}
	h, ok := s.pages.Get().(*history)
	if !ok {
		h = new(history)
	}
	defer s.recycle(h)
	if err := s.readHistory(r.Context(), ac, reader, kinds, q.Get("after"), limit, h); err != nil {
		return err
	}
	return writeHistory(w, h)
}

// parseLimit returns how much a page is to have at most.
func parseLimit(q url.Values, usual, most int) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return usual, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > most {
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "limit", "must be 1 to %d", most)
	}
	return limit, nil
}

// history is what a page is made of.
type history struct {
	events []byte // their JSON, separated by commas
	count  int
	next   twinrail.Cursor
	bounds journal.Bounds
}

// recycle keeps a page's memory for the next one, unless it is large.
func (s *Server) recycle(h *history) {
	if cap(h.events) <= historyKept {
		*h = history{events: h.events[:0]}
		s.pages.Put(h)
	}
}

// readHistory waits its turn among the reads of the tenant, and fills in h, which is
// empty.
func (s *Server) readHistory(ctx context.Context, ac *auth.Context, r auth.Reader, kinds kindFilter, after string, limit int, h *history) error {
	done, err := s.engine.shares.takeRead(ctx, tenantOf(ac))
	if err != nil {
		return err
	}
	defer done()
	replay := s.flagsOf(ac).Replay
	for range historyTries {
		if h.bounds, err = s.opts.Journal.Bounds(ctx, r); err != nil {
			return err
		}
		if !replay {
			h.bounds.Oldest = h.bounds.Head
		}
		h.next, err = s.historyStart(ctx, r, after, h.bounds)
		if err == nil && replay { // else what is there was appended since the head was asked for
			err = s.page(ctx, r, kinds, h, limit)
		}
		switch {
		case !errors.Is(err, errOvertaken):
			return err
		case h.count > 0:
			return nil // whoever goes on from next is told
		case !fromOldest(after):
			return voidCursor(twinrail.CodeCursorExpired)
		}
	}
	return &twinrail.Error{Code: twinrail.CodeOverloaded, Detail: "the stream is trimmed faster than it is read"}
}

// errOvertaken says that what follows a position that was valid has been trimmed
// since.
var errOvertaken = errors.New("server: trimmed while it was read")

func fromOldest(after string) bool { return after == "" || after == twinrail.CursorEarliest }

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
	if fromOldest(after) {
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

// page appends up to limit events to h, from h.next on, that are meant for r and
// are of the kinds that it wants. It fails with errOvertaken where what would come
// next was trimmed since the position was checked; h has what came before that.
func (s *Server) page(ctx context.Context, r auth.Reader, kinds kindFilter, h *history, limit int) error {
	// Mostly the first read is the only one, and need not be of more than is asked.
	chunk := min(historyChunk, limit<<10)
	for reads := 0; h.count < limit && len(h.events) < historyBytes && reads < historyReads; reads++ {
		page, err := s.opts.Journal.Read(ctx, r, h.next.Seq, chunk)
		if err != nil {
			return err
		}
		if page.Gap {
			return errOvertaken
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			if h.count == limit {
				return nil
			}
			if !r.Owns(e.Owner) {
				return hub.ErrForeign
			}
			h.next = e.Cursor
			if r.Admits(e.Owner, e.Channel, e.Audience, e.To) && (kinds == 0 || kinds.wants(e.Channel, labelEntry(e))) {
				h.add(e)
			}
		}
		if !page.More {
			break
		}
		chunk = historyChunk
		runtime.Gosched() // a long page is not to hold up what is short
	}
	return nil
}

func (h *history) add(e *journal.Entry) {
	if h.count++; h.count > 1 {
		h.events = append(h.events, ',')
	}
	h.events = appendEvent(h.events, e)
}

// writeHistory writes a page by hand, since encoding/json would not keep the
// events byte for byte.
func writeHistory(w http.ResponseWriter, h *history) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	for _, part := range [][]byte{
		[]byte(`{"events":[`), h.events,
		[]byte(`],"next":"` + h.next.String() + `","oldest":"` + h.bounds.Oldest.String() + `","head":"` + h.bounds.Head.String() + "\"}\n"),
	} {
		if _, err := w.Write(part); err != nil {
			return abandoned(err)
		}
	}
	return nil
}
