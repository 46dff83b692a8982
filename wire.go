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
	PathPresence    = "/v1/presence"
	PathTickets     = "/v1/tickets"
	PathSession     = "/v1/session"
	PathConnections = "/v1/connections/" // and then the connection_id, and /auth
	PathRevocations = "/v1/revocations"
)

// TicketParam is the query parameter that carries a ticket.
const TicketParam = "ticket"

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
// neither id nor seq nor cursor.
type PublishResult struct {
	ID     string    `json:"id,omitempty"`
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

// TicketRequest is the body of POST /v1/tickets, all of it optional: what the
// ticket is to be good for, at most.
type TicketRequest struct {
	// Rail is the one rail that it opens.
	Rail Rail `json:"rail,omitempty"`
	// Routing gives keys that whatever is read or written with it must have.
	Routing *Routing `json:"routing,omitempty"`
	// Channels are those that it gives rights on.
	Channels []Channel `json:"channels,omitempty"`
}

// TicketResponse answers POST /v1/tickets.
type TicketResponse struct {
	Ticket    string    `json:"ticket"`
	ExpiresAt time.Time `json:"expires_at"`
}

// LifetimeResponse answers POST /v1/session and POST /v1/connections/{id}/auth:
// how long the cookie, or the connection, is good for.
type LifetimeResponse struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// RevocationRequest is the body of POST /v1/revocations. It gives exactly one of
// the three.
type RevocationRequest struct {
	TokenID string `json:"jti,omitempty"`
	ActorID string `json:"actor_id,omitempty"`
	// Tenant, where true, is for everybody in the caller's tenant and env.
	Tenant bool `json:"tenant,omitempty"`
}

// RevocationResponse answers POST /v1/revocations. Credentials issued up to
// RevokedAt are void; a jti is void whenever it was issued. At ForgottenAt all
// of them have expired.
type RevocationResponse struct {
	RevokedAt   time.Time `json:"revoked_at"`
	ForgottenAt time.Time `json:"forgotten_at"`
}

// PresenceMember is one who is present at an address: an actor in a session. Who it is
// is said by ActorID, SessionID and Routing together.
type PresenceMember struct {
	ActorID   string    `json:"actor_id"`
	ActorType ActorType `json:"actor_type,omitempty"`
	SessionID string    `json:"session_id"`
	// Routing has the audience keys of the address; nil where there are none.
	Routing *Routing `json:"routing,omitempty"`
	// Since is when the member came.
	Since *Timestamp `json:"since,omitempty"`
	// State is what the member last said of itself.
	State json.RawMessage `json:"state,omitempty"`
}

// PresenceResponse answers GET /v1/presence: a page of those who are there.
type PresenceResponse struct {
	Members []PresenceMember `json:"members"`
	// Next is what to ask for as after to go on; "" where there is nobody more.
	Next string `json:"next,omitempty"`
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
	// Presence, in a join, makes the client present with that state.
	Presence json.RawMessage `json:"presence,omitempty"`
	// State, in a presence frame, is the client's new one: any JSON value, at
	// most 2 KiB.
	State json.RawMessage `json:"state,omitempty"`
	// ResumeToken and Cursors are of a resume frame.
	ResumeToken string            `json:"resume_token,omitempty"`
	Cursors     map[string]string `json:"cursors,omitempty"`
	// Token is of an auth frame.
	Token string `json:"token,omitempty"`
}

// Subscription is what joined says of one subscription, and resumed of each.
type Subscription struct {
	Sub     string `json:"sub"`
	Cursor  string `json:"cursor,omitempty"`
	Head    string `json:"head,omitempty"`
	Resumed bool   `json:"resumed"`
	Reason  Code   `json:"reason,omitempty"`
	// Members is who is present, where the subscription has the channel
	// presence, and nil otherwise.
	Members []PresenceMember `json:"members,omitzero"`
	// Code, and with it Detail, say why the subscription was not restored.
	Code   Code   `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// ServerFrame is any frame of the server; which members an op gives is in the
// protocol's documentation.
type ServerFrame struct {
	Op  string `json:"op"`
	Ref string `json:"ref,omitempty"`
	Sub string `json:"sub,omitempty"`

	// welcome, joined, left, resumed
	ResumeToken string `json:"resume_token,omitempty"`

	// welcome; the session also in resumed
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

	// joined: who is present, where the channel presence was asked for
	Members []PresenceMember `json:"members,omitzero"`

	// resumed
	Subs []Subscription `json:"subs,omitzero"`

	// presence, always all three: leave is applied first, then join, then update
	Join   []PresenceMember `json:"join,omitzero"`
	Update []PresenceMember `json:"update,omitzero"`
	Leave  []PresenceMember `json:"leave,omitzero"`

	// event, as a client decodes it; the server writes it from shared bytes
	Event json.RawMessage `json:"event,omitempty"`

	// ack
	Results []PublishResult `json:"results,omitempty"`

	// ping of the server: where each subscription stands
	Cursors map[string]string `json:"cursors,omitempty"`

	// auth_expiring, authed
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

// PathFlags lists the flags of the caller's tenant and env; with "/" and a flag's
// name behind it, it sets and unsets that one.
const PathFlags = "/v1/flags"

// FlagSource says whose word a flag's value is.
type FlagSource string

// The sources: the tenant's own setting, Tenant-0's for the env, or neither.
const (
	FlagFromTenant  FlagSource = "tenant"
	FlagFromTenant0 FlagSource = "tenant0"
	FlagBuiltIn     FlagSource = "default"
)

// FlagRequest is the body of PUT /v1/flags/{name}.
type FlagRequest struct {
	// Value is true or false, or an integer, as the flag's default is.
	Value json.RawMessage `json:"value"`
	// Overridable says whether tenants may override the value. Only Tenant-0 may
	// give it; left out, it stays as it is.
	Overridable *bool `json:"overridable,omitempty"`
}

// Flag is what a flag is for the caller's tenant and env. It answers PUT and
// DELETE of /v1/flags/{name}.
type Flag struct {
	Name   string          `json:"name"`
	Value  json.RawMessage `json:"value"`
	Source FlagSource      `json:"source"`
	// Overridable says whether tenants may override Tenant-0's value.
	Overridable bool `json:"overridable"`
	// Default is the value where nobody has set one.
	Default json.RawMessage `json:"default"`
	// Overruled is the tenant's own setting, where Tenant-0 lets it have no effect.
	Overruled json.RawMessage `json:"overruled,omitempty"`
}

// FlagsResponse answers GET /v1/flags with all flags.
type FlagsResponse struct {
	Flags []Flag `json:"flags"`
}
