package twinrail

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// Version is the value of an event's "v".
const Version = 1

// A Channel is a kind of traffic within a stream.
type Channel string

// The channels. Commit, artifact and gesture live in canvas streams, chat and
// tool in thread streams, presence in either.
const (
	Commit   Channel = "commit"
	Artifact Channel = "artifact"
	Gesture  Channel = "gesture"
	Chat     Channel = "chat"
	Tool     Channel = "tool"
	Presence Channel = "presence"
)

// A Rail is a transport: it carries a fixed set of channels to subscribers.
type Rail string

// The two rails.
const (
	RailSSE Rail = "sse"
	RailWS  Rail = "ws"
)

// A ChannelSet is a set of channels.
type ChannelSet uint8

var channelTable = [...]struct {
	channel   Channel
	kinds     [2]Kind // the second is 0 where there is only one
	rail      Rail    // by which subscribers get it
	journaled bool
}{
	{Commit, [2]Kind{CanvasStream}, RailSSE, true},
	{Artifact, [2]Kind{CanvasStream}, RailSSE, true},
	{Gesture, [2]Kind{CanvasStream}, RailSSE, false},
	{Chat, [2]Kind{ThreadStream}, RailWS, true},
	{Tool, [2]Kind{ThreadStream}, RailWS, true},
	{Presence, [2]Kind{CanvasStream, ThreadStream}, RailWS, false},
}

// Valid reports whether c is one of the six channels.
func (c Channel) Valid() bool { return c.index() >= 0 }

func (c Channel) index() int {
	for i := range channelTable {
		if channelTable[i].channel == c {
			return i
		}
	}
	return -1
}

// In reports whether c lives in streams of the given kind.
func (c Channel) In(kind Kind) bool {
	i := c.index()
	return i >= 0 && kind != 0 && (channelTable[i].kinds[0] == kind || channelTable[i].kinds[1] == kind)
}

// Rail returns the rail by which subscribers get c, or "" for no channel.
func (c Channel) Rail() Rail {
	if i := c.index(); i >= 0 {
		return channelTable[i].rail
	}
	return ""
}

// Journaled reports whether events of c are kept: all are but gesture and
// presence, which are ephemeral.
func (c Channel) Journaled() bool {
	i := c.index()
	return i >= 0 && channelTable[i].journaled
}

// ChannelsOf returns the set of the given channels; what is no channel is left out.
func ChannelsOf(channels ...Channel) ChannelSet {
	var s ChannelSet
	for _, c := range channels {
		if i := c.index(); i >= 0 {
			s |= 1 << i
		}
	}
	return s
}

// Has reports whether c is in s.
func (s ChannelSet) Has(c Channel) bool {
	i := c.index()
	return i >= 0 && s&(1<<i) != 0
}

// Channels returns the members of s in the order commit, artifact, gesture,
// chat, tool, presence.
func (s ChannelSet) Channels() []Channel {
	var out []Channel
	for i := range channelTable {
		if s&(1<<i) != 0 {
			out = append(out, channelTable[i].channel)
		}
	}
	return out
}

// Event is one event as it stands on either rail, in history and in what is
// published.
//
// The server stamps v, seq, prev, cursor, time, actor_type, the actor in
// routing, request_id and traceparent; what a publisher writes there is not
// taken over, and an actor who is not the publisher is refused.
type Event struct {
	V int `json:"v"`
	// ID is the publisher's, 1 to 128 of A-Z a-z 0-9 . _ : -, or a UUIDv7 from
	// the server.
	ID      string  `json:"id"`
	Channel Channel `json:"channel"`
	// Type is 1 to 64 of a-z 0-9 _ . -
	Type string `json:"type"`
	// Seq rises within a stream, not always by one. Prev is the Seq of the
	// event before it in the stream, 0 for the first, whoever that one was for.
	// Ephemeral events have neither Seq, Prev nor Cursor.
	Seq    uint64  `json:"seq,omitempty"`
	Prev   *uint64 `json:"prev,omitempty"`
	Cursor string  `json:"cursor,omitempty"`
	// Time is when the server took the event, UTC, to the microsecond.
	Time      time.Time `json:"time"`
	ActorType ActorType `json:"actor_type,omitempty"`
	Routing   Routing   `json:"routing"`
	// To, where present, lists the actors who alone receive the event.
	To          []string `json:"to,omitempty"`
	RequestID   string   `json:"request_id,omitempty"`
	Traceparent string   `json:"traceparent,omitempty"`
	// Data is any JSON value, kept byte for byte.
	Data json.RawMessage `json:"data"`
}

// TimeFormat is the layout of an event's time: RFC 3339, always six digits.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// Timestamp is a time that is written like an event's.
type Timestamp struct{ time.Time }

// MarshalText returns the time in [TimeFormat], UTC.
func (t Timestamp) MarshalText() ([]byte, error) { return []byte(t.UTC().Format(TimeFormat)), nil }

// MarshalJSON returns the text as a JSON string; without it the embedded time's
// own form would be used.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + TimeFormat + `"`)), nil
}

// AppendHead appends the JSON of e up to where its position belongs, and
// AppendTail what comes after it:
//
//	head  {"v":1,"id":"…","channel":"…","type":"…"
//	tail  ,"time":"…", … ,"data":…}
//
// Data is copied byte for byte, which encoding/json does not do.
func (e *Event) AppendHead(dst []byte) []byte {
	dst = append(dst, `{"v":`...)
	dst = strconv.AppendInt(dst, Version, 10)
	if e.ID != "" { // gestures have none
		dst = appendMember(dst, "id", e.ID)
	}
	dst = appendMember(dst, "channel", string(e.Channel))
	return appendMember(dst, "type", e.Type)
}

// AppendTail appends the JSON of e from behind its position to its end.
func (e *Event) AppendTail(dst []byte) []byte {
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, '"')
	if e.ActorType != "" {
		dst = appendMember(dst, "actor_type", string(e.ActorType))
	}
	dst = append(dst, `,"routing":{`...)
	first := true
	for k := range numKeys {
		v := e.Routing.Get(k)
		if v == "" {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendString(append(appendString(dst, k.String()), ':'), v)
	}
	dst = append(dst, '}')
	if len(e.To) > 0 {
		dst = append(dst, `,"to":[`...)
		for i, actor := range e.To {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, actor)
		}
		dst = append(dst, ']')
	}
	if e.RequestID != "" {
		dst = appendMember(dst, "request_id", e.RequestID)
	}
	if e.Traceparent != "" {
		dst = appendMember(dst, "traceparent", e.Traceparent)
	}
	dst = append(dst, `,"data":`...)
	if len(e.Data) == 0 {
		dst = append(dst, "null"...)
	}
	return append(append(dst, e.Data...), '}')
}

// AppendPosition appends the members that say where an event stands:
//
//	,"seq":42,"prev":41,"cursor":"…"
func AppendPosition(dst []byte, c Cursor, prev uint64) []byte {
	dst = strconv.AppendUint(append(dst, `,"seq":`...), c.Seq, 10)
	dst = strconv.AppendUint(append(dst, `,"prev":`...), prev, 10)
	dst = append(dst, `,"cursor":"`...)
	return append(c.append(dst), '"')
}

// MarshalJSON returns the event's JSON with Data byte for byte. To keep that,
// write what it returns as it is: encoding/json compacts what it embeds.
func (e *Event) MarshalJSON() ([]byte, error) {
	dst := e.AppendHead(nil)
	if e.Seq != 0 {
		dst = strconv.AppendUint(append(dst, `,"seq":`...), e.Seq, 10)
	}
	if e.Prev != nil {
		dst = strconv.AppendUint(append(dst, `,"prev":`...), *e.Prev, 10)
	}
	if e.Cursor != "" {
		dst = appendMember(dst, "cursor", e.Cursor)
	}
	return e.AppendTail(dst), nil
}

func appendMember(dst []byte, name, value string) []byte {
	return appendString(append(appendString(append(dst, ','), name), ':'), value)
}

// appendString appends s as a JSON string. What is stored in an event besides
// its data is of a small alphabet, so the quick way is the usual one.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// ValidEventID reports whether id may be an event's id: 1 to 128 of
// A-Z a-z 0-9 . _ : -
func ValidEventID(id string) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

// ValidEventType reports whether t may be an event's type: 1 to 64 of
// a-z 0-9 _ . -
func ValidEventType(t string) bool {
	if len(t) == 0 || len(t) > 64 {
		return false
	}
	for i := range len(t) {
		switch c := t[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// The kinds of an artifact event, in data.kind.
const (
	ArtifactPreview = "preview"
	ArtifactReplay  = "replay"
	ArtifactAudit   = "audit"
)
