package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/twinrail/twinrail"
)

// incoming is an event as a publisher sends it: a NewEvent, or a whole event as
// it was once delivered, of which the server's stamps are passed over.
type incoming struct {
	twinrail.NewEvent
	V           *int               `json:"v"`
	ActorType   twinrail.ActorType `json:"actor_type"`
	Seq         jsontext.Value     `json:"seq"`
	Prev        jsontext.Value     `json:"prev"`
	Cursor      jsontext.Value     `json:"cursor"`
	Time        jsontext.Value     `json:"time"`
	RequestID   jsontext.Value     `json:"request_id"`
	Traceparent jsontext.Value     `json:"traceparent"`
}

// publishBody is the body of POST /v1/publish, and part of the publish frame.
type publishBody struct {
	Events      []incoming `json:"events"`
	ExpectedSeq *uint64    `json:"expected_seq"`
}

// clientFrame is any frame of a client.
type clientFrame struct {
	Op  string `json:"op"`
	Ref string `json:"ref"`
	joinBody
	publishBody
	State jsontext.Value `json:"state"`
	resumeBody
	Token string `json:"token"`
}

// resumeBody is part of the resume frame.
type resumeBody struct {
	ResumeToken string            `json:"resume_token"`
	Cursors     map[string]string `json:"cursors"`
}

// joinBody is part of the join frame.
type joinBody struct {
	Sub      string             `json:"sub"`
	Routing  *twinrail.Routing  `json:"routing"`
	Channels []twinrail.Channel `json:"channels"`
	After    string             `json:"after"`
	Presence jsontext.Value     `json:"presence"`
}

// decode reads b as one JSON value into v. Names must be spelled exactly, known,
// and given once: to pass over a misspelled audience key would widen it. The
// error has the given code, and as field where in b it is.
//
// Strings are UTF-8. The escape of half a surrogate pair is let through, since
// JSON allows it and JavaScript makes it, and so are names that occur twice within
// an event's data.
func decode(b []byte, v any, code twinrail.Code) error {
	if !utf8.Valid(b) {
		return twinrail.Errorf(code, "", "not UTF-8")
	}
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true), lenient)
	if err == nil {
		err = checkNames(b)
	}
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		return twinrail.Errorf(code, field(semantic.JSONPointer), "there is no such member")
	case errors.As(err, &semantic):
		return twinrail.Errorf(code, field(semantic.JSONPointer), "not of the right type")
	case errors.As(err, &syntactic) && errors.Is(err, jsontext.ErrDuplicateName):
		return twinrail.Errorf(code, field(syntactic.JSONPointer), "given twice")
	case errors.As(err, &syntactic):
		return twinrail.Errorf(code, field(syntactic.JSONPointer), "not JSON, at byte %d", syntactic.ByteOffset)
	}
	return twinrail.Errorf(code, "", "not JSON")
}

// lenient lets through what JSON allows and the data of an event may hold: the
// escape of half a surrogate pair, and a name that is given twice.
var lenient = json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// checkNames refuses a name that is given twice anywhere but in the data of an
// event, which is the publisher's own. Of b it is known that it is JSON.
func checkNames(b []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(b), lenient)
	var names []map[string]bool // of the objects that are open; nil for an array
	var top string              // the member of b that is being read
	for {
		token, err := dec.ReadToken()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		switch token.Kind() {
		case '{':
			names = append(names, make(map[string]bool))
		case '[':
			names = append(names, nil)
		case '}', ']':
			names = names[:len(names)-1]
		case '"':
			kind, members := dec.StackIndex(dec.StackDepth())
			if kind != '{' || members%2 == 0 {
				continue // a value
			}
			name := token.String()
			open := names[len(names)-1]
			if open[name] {
				return &jsontext.SyntacticError{JSONPointer: dec.StackPointer(), Err: jsontext.ErrDuplicateName}
			}
			open[name] = true
			if len(names) == 1 {
				top = name
			}
			if name == "data" && len(names) == eventDepth && top == "events" {
				if err := dec.SkipValue(); err != nil {
					return err
				}
			}
		}
	}
}

// eventDepth is how many values are open within an event: the body, the array of
// events, and the event itself. To ask for a pointer instead would take as long as
// the names in it are, at each member.
const eventDepth = 3

// field writes a JSON pointer as a field: /events/3/type as events[3].type.
func field(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		switch {
		case token != "" && strings.Trim(token, "0123456789") == "" && b.Len() > 0:
			fmt.Fprintf(&b, "[%s]", token)
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	const maxField = 200 // it is the client's own text
	s := b.String()
	return strings.ToValidUTF8(s[:min(len(s), maxField)], "")
}
