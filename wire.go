package twinrail

import (
	"encoding/json"
	"time"
)

// Subprotocol is the WebSocket subprotocol of the WS rail.
const Subprotocol = "twinrail.v1"

// BearerSubprotocol is put before a JWT to carry it as a second subprotocol,
// for clients that can set no header.
const BearerSubprotocol = "bearer."

// The paths of the HTTP interface.
const (
	PathWS          = "/v1/ws"
	PathSSECanvases = "/v1/sse/canvases/" // and then the canvas_id
	PathPublish     = "/v1/publish"
	PathHistory     = "/v1/history"
)

// Problem is the body of an error response: an RFC 9457 problem document.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Code      Code   `json:"code"`
	Field     string `json:"field,omitempty"`
	Retry     Retry  `json:"retry"`
	RequestID string `json:"request_id"`
}

// NewEvent is an event as a publisher sends it. Keys that Routing leaves out are
// those of the request's context; those of both must agree.
type NewEvent struct {
	ID      string          `json:"id,omitempty"`
	Channel Channel         `json:"channel"`
	Type    string          `json:"type"`
	Routing *Routing        `json:"routing,omitempty"`
	To      []string        `json:"to,omitempty"`
	Data    json.RawMessage `json:"data"`
}

// PublishRequest is the body of POST /v1/publish: 1 to 100 events of one stream,
// stored all or none.
type PublishRequest struct {
	Events []NewEvent `json:"events"`
	// ExpectedSeq, where present, refuses with seq_conflict unless the stream's
	// last seq is that.
	ExpectedSeq *uint64 `json:"expected_seq,omitempty"`
}

// PublishResult says where a published event stands. Ephemeral events have
// neither seq nor cursor.
type PublishResult struct {
	ID     string    `json:"id"`
	Seq    uint64    `json:"seq,omitempty"`
	Prev   *uint64   `json:"prev,omitempty"`
	Cursor string    `json:"cursor,omitempty"`
	Time   Timestamp `json:"time"`
	// Duplicate is true where the stream has seen the id before: the result is
	// the first one's, and nothing was stored.
	Duplicate bool `json:"duplicate,omitempty"`
}

// PublishResponse answers a publish, one result for each event in its order.
type PublishResponse struct {
	Results []PublishResult `json:"results"`
}

// HistoryPage answers GET /v1/history. Next is the cursor to ask on from; once
// all is read it is equal to Head, or past it where events came in meanwhile.
// Oldest is the cursor before the oldest event that is retained.
type HistoryPage struct {
	Events []json.RawMessage `json:"events"`
	Next   string            `json:"next"`
	Oldest string            `json:"oldest"`
	Head   string            `json:"head"`
}

// The names of the SSE rail's own events; all other events are named by their
// channel.
const (
	SSEOpen         = "open"
	SSELive         = "live"
	SSEReset        = "reset"
	SSEAuthExpiring = "auth_expiring"
	SSEEnd          = "end"
)

// Open is the data of the SSE event "open". Cursor is where the stream starts.
type Open struct {
	ConnectionID string `json:"connection_id"`
	Cursor       string `json:"cursor"`
	Head         string `json:"head"`
	// Resumed is true where the client's cursor was valid. Reason says why it
	// was not.
	Resumed bool `json:"resumed"`
	Reason  Code `json:"reason,omitempty"`
}

// Live is the data of the SSE event "live" and part of the WS frame: the backlog
// is done.
type Live struct {
	Cursor string `json:"cursor"`
}

// Reset is the data of the SSE event "reset": what lies between Requested and
// Head cannot be delivered, so fetch the state anew and go on from Head.
type Reset struct {
	Reason    Code   `json:"reason"`
	Requested string `json:"requested,omitempty"`
	Oldest    string `json:"oldest"`
	Head      string `json:"head"`
}

// AuthExpiring is the data of the SSE event "auth_expiring" and part of the WS
// frame.
type AuthExpiring struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// End is the data of the SSE event "end": the server closes, and Reconnect says
// whether coming back makes sense.
type End struct {
	Code      Code `json:"code"`
	Reconnect bool `json:"reconnect"`
}

// The values of a frame's op. The first group is the client's, the second the
// server's; ping and pong go both ways.
const (
	OpJoin     = "join"
	OpLeave    = "leave"
	OpPublish  = "publish"
	OpPresence = "presence"
	OpResume   = "resume"
	OpAuth     = "auth"
	OpPing     = "ping"
	OpPong     = "pong"

	OpWelcome      = "welcome"
	OpJoined       = "joined"
	OpEvent        = "event"
	OpLive         = "live"
	OpLeft         = "left"
	OpAck          = "ack"
	OpReset        = "reset"
	OpError        = "error"
	OpDrain        = "drain"
	OpResumed      = "resumed"
	OpAuthed       = "authed"
	OpAuthExpiring = "auth_expiring"
)

// ClientFrame is any frame of a client; which members an op takes is in the
// protocol's documentation. A member that the op does not take is refused.
type ClientFrame struct {
	Op string `json:"op"`
	// Ref is the client's; the answer repeats it. At most 64 bytes.
	Ref string `json:"ref,omitempty"`

	// Sub is the client's name for a subscription: 1 to 64 of A-Z a-z 0-9 . _ : -
	Sub      string     `json:"sub,omitempty"`
	Routing  *Routing   `json:"routing,omitempty"`
	Channels []Channel  `json:"channels,omitempty"`
	After    string     `json:"after,omitempty"`
	Events   []NewEvent `json:"events,omitempty"`
	// ExpectedSeq is as in [PublishRequest].
	ExpectedSeq *uint64 `json:"expected_seq,omitempty"`
}

// ServerFrame is any frame of the server; which members an op gives is in the
// protocol's documentation.
type ServerFrame struct {
	Op  string `json:"op"`
	Ref string `json:"ref,omitempty"`
	Sub string `json:"sub,omitempty"`

	// welcome
	ConnectionID string     `json:"connection_id,omitempty"`
	SessionID    string     `json:"session_id,omitempty"`
	HeartbeatMS  int64      `json:"heartbeat_ms,omitempty"`
	ServerTime   *time.Time `json:"server_time,omitempty"`

	// joined, live, reset
	Cursor  string `json:"cursor,omitempty"`
	Head    string `json:"head,omitempty"`
	Oldest  string `json:"oldest,omitempty"`
	Resumed *bool  `json:"resumed,omitempty"`
	Reason  Code   `json:"reason,omitempty"`

	// event, as a client decodes it; the server writes it from shared bytes
	Event json.RawMessage `json:"event,omitempty"`

	// ack
	Results []PublishResult `json:"results,omitempty"`

	// ping of the server: where each subscription stands
	Cursors map[string]string `json:"cursors,omitempty"`

	// auth_expiring
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	// error
	Code         Code   `json:"code,omitempty"`
	Field        string `json:"field,omitempty"`
	Detail       string `json:"detail,omitempty"`
	Retry        Retry  `json:"retry,omitempty"`
	Action       Action `json:"action,omitempty"` // only before a close
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	Resumable    *bool  `json:"resumable,omitempty"` // only before a close
	RequestID    string `json:"request_id,omitempty"`

	// drain
	ReconnectAfterMS int64 `json:"reconnect_after_ms,omitempty"`
}
