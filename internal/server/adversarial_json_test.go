package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// spoiled is text that is no JSON value, in whatever place one is wanted.
var spoiled = map[string]string{
	"nothing": "", "cut": "{", "a NUL": "\x00", "a BOM": "\ufeff1", "a bare word": "undefined", "a comment": "/*x*/1", "single quotes": "'1'",
	"NaN": "NaN", "hexadecimal": "0x1", "a leading zero": "01", "a plus": "+1", "a dot": "1.", "a comma more": "[1,]", "a control": "\"\x01\"",
	"a NUL in a string": "\"\x00\"", "no UTF-8": "\"\xff\"", "an overlong NUL": "\"\xc0\x80\"", "half a pair in UTF-8": "\"\xed\xa0\x80\"",
	"a bad escape": `"\x41"`, "a cut escape": `"\u00"`, "two values": "1 1", "an object after": "1{}", "too deep": strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
	"unclosed, deep": strings.Repeat(`{"a":`, 5000), "a line separator": "1\u2028", "a vertical tab": "\v1",
}

// TestJSONSpoiled has every body and frame with such a value in the place of a
// whole one, of a member, and of data.
func TestJSONSpoiled(t *testing.T) {
	d := newDirect(t, func(o *Options) { o.FrameRate = -1 })
	p := d.drive(wsPath, d.token)
	owner := as(d.issuer.Token(authtest.Role(twinrail.Owner)))
	for name, text := range spoiled {
		for _, path := range []string{publishPath, ticketsPath, revocationsPath, flagsPath("replay")} {
			method := "POST"
			if strings.HasPrefix(path, twinrail.PathFlags) {
				method = "PUT"
			}
			for _, body := range []string{text, `{"events":` + text + `}`, `{"value":` + text + `}`, `{"routing":` + text + `}`, `{"jti":` + text + `}`,
				`{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":` + text + `}]}`, `{}` + text + "x"} {
				if body == "" && path == ticketsPath {
					continue // which may have none
				}
				if code := codeOf(t, path, d.do(method, path, body, owner)); code != twinrail.CodeBadRequest {
					t.Errorf("%s to %s in %.60q: %q", name, path, body, code)
				}
			}
		}
		for _, frame := range []string{text, `{"op":` + text + `}`, `{"op":"ping","ref":` + text + `}`, `{"op":"join","sub":"s","routing":` + text + `}`,
			`{"op":"join","sub":"s","routing":{"thread_id":"th1"},"channels":["presence"],"presence":` + text + `}`,
			`{"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":` + text + `}]}`} {
			if code := p.code(frame); code != twinrail.CodeBadFrame {
				t.Errorf("%s in %.60q: %q", name, frame, code)
			}
		}
	}
	if resp := d.do("GET", historyPath, "", owner); !strings.HasPrefix(string(resp.body), `{"events":[],`) {
		t.Errorf("stored: %s", resp.body)
	}
}

// whole bodies and frames, with every member that there is.
const (
	wholePublish = `{"expected_seq":0,"events":[{"v":1,"id":"e","channel":"commit","type":"t","seq":1,"prev":0,"cursor":"x","time":"x","actor_type":"human",` +
		`"routing":{"tenant_id":"t_acme","canvas_id":"c1","panel_id":"l1","actor_id":"u_1"},"to":["u_1"],"request_id":"x","traceparent":"x","data":1}]}`
	wholeTicket = `{"rail":"sse","routing":{"canvas_id":"c1","panel_id":"l1"},"channels":["commit"]}`
	wholeRevoke = `{"jti":"x"}`
	wholeFlag   = `{"value":true}`
	wholeJoin   = `{"op":"join","ref":"r","sub":"s","routing":{"thread_id":"th1","panel_id":"l1"},"channels":["chat","presence"],"after":"earliest","presence":{}}`
	wholeFrame  = `{"op":"publish","ref":"r","events":[{"id":"f","channel":"chat","type":"t","routing":{"thread_id":"th1","panel_id":"l1"},"to":["u_1"],"data":1}]}`
	wholeAuth   = `{"op":"auth","ref":"r","token":"x"}`
	wholeState  = `{"op":"presence","ref":"r","sub":"s","state":{}}`
	wholeResume = `{"op":"resume","ref":"r","resume_token":"x","cursors":{"s":"x","t":"y"}}`
)

// everyMember calls each with text in which the member at a place, whatever the
// level, is replaced by what change makes of its name and value.
func everyMember(t *testing.T, text string, change func(name, value string) string, each func(where, text string)) {
	t.Helper()
	var walk func(path string, value json.RawMessage, put func(string) string)
	walk = func(path string, value json.RawMessage, put func(string) string) {
		var list []json.RawMessage
		if json.Unmarshal(value, &list) == nil && len(list) > 0 {
			walk(path+"[0]", list[0], func(s string) string { return put("[" + s + "]") })
			return
		}
		var object map[string]json.RawMessage
		if path != "" && strings.HasSuffix(path, ".data") || json.Unmarshal(value, &object) != nil {
			return
		}
		for name, member := range object {
			with := func(s string) string {
				return put(strings.Replace(string(value), fmt.Sprintf("%q:%s", name, member), s, 1))
			}
			each(path+"."+name, with(change(name, string(member))))
			walk(path+"."+name, member, func(s string) string { return with(fmt.Sprintf("%q:%s", name, s)) })
		}
	}
	walk("", json.RawMessage(text), func(s string) string { return s })
}

// TestJSONMemberTwice gives each member at each level twice, in either order and
// with one of the names in escapes, also where both say the same.
func TestJSONMemberTwice(t *testing.T) {
	eachSpoiled(t, func(name, value string) []string {
		escaped := fmt.Sprintf(`"\u%04x%s"`, name[0], name[1:])
		plain := fmt.Sprintf("%q:%s", name, value)
		return []string{plain + "," + plain, plain + "," + escaped + ":" + value, escaped + ":null," + plain, plain + "," + fmt.Sprintf("%q:null", name)}
	})
}

// TestJSONMemberMisspelled spells each name in another case, with a blank and with a
// letter that looks alike, and adds a member that there is not.
func TestJSONMemberMisspelled(t *testing.T) {
	eachSpoiled(t, func(name, value string) (all []string) {
		if name == "s" || name == "t" { // the client's own names, of subscriptions
			return nil
		}
		for _, other := range []string{strings.ToUpper(name[:1]) + name[1:], strings.ToUpper(name), name + " ", name + "\u200b", strings.Replace(name, "s", "\u017f", 1) + "\u0301", "__proto__"} {
			all = append(all, fmt.Sprintf("%q:%s", other, value))
		}
		return append(all, fmt.Sprintf("%q:%s,%q:1", name, value, "x-"+name))
	})
}

// eachSpoiled has each member of each whole body and frame changed in each way, and
// wants it refused for its form.
func eachSpoiled(t *testing.T, changes func(name, value string) []string) {
	t.Helper()
	d := newDirect(t, func(o *Options) { o.FrameRate = -1 })
	owner := as(d.issuer.Token(authtest.Role(twinrail.Owner)))
	p := d.drive(wsPath, d.token)
	for _, body := range [][3]string{
		{"POST", publishPath, wholePublish}, {"POST", ticketsPath, wholeTicket}, {"POST", revocationsPath, wholeRevoke}, {"PUT", flagsPath("replay"), wholeFlag},
	} {
		for i := range 8 {
			everyMember(t, body[2], nth(changes, i), func(where, text string) {
				if code := codeOf(t, where, d.do(body[0], body[1], text, owner)); code != twinrail.CodeBadRequest && text != body[2] {
					t.Errorf("%s%s: %q for %s", body[1], where, code, text)
				}
			})
		}
		if code := codeOf(t, body[1], d.do(body[0], body[1], body[2], owner)); code != "" {
			t.Errorf("%s whole: %q", body[1], code)
		}
	}
	for _, frame := range []string{wholeJoin, wholeFrame, wholeAuth, wholeState, wholeResume} {
		for i := range 8 {
			everyMember(t, frame, nth(changes, i), func(where, text string) {
				if code := p.code(text); code != twinrail.CodeBadFrame && text != frame {
					t.Errorf("%s: %q for %s", where, code, text)
				}
			})
		}
		if code := p.code(frame); code == twinrail.CodeBadFrame {
			t.Errorf("a whole one: %q for %s", code, frame)
		}
	}
}

// nth returns the i-th of the changes, and none where there are not so many.
func nth(changes func(name, value string) []string, i int) func(name, value string) string {
	return func(name, value string) string {
		if all := changes(name, value); i < len(all) {
			return all[i]
		}
		return fmt.Sprintf("%q:%s", name, value)
	}
}

// TestJSONOfEachType gives each member a value of each type: a code of its own, and
// never our fault.
func TestJSONOfEachType(t *testing.T) {
	d := newDirect(t, func(o *Options) { o.FrameRate = -1 })
	p := d.drive(wsPath, d.token)
	for _, value := range []string{
		"null", "true", "0", "-1", "1.5", "1e400", "-1e-400", "18446744073709551616", strings.Repeat("9", 5000), `""`, `"x"`, `"\u0000"`, `"\ud800"`, `"\udc00\ud800"`,
		`[]`, `[null]`, `[[]]`, `{}`, `{"":1}`, `{"a":{}}`, strings.Repeat("[", 9000) + strings.Repeat("]", 9000), `"` + strings.Repeat("x", 100_000) + `"`, `["` + strings.Repeat(`x","`, 5000) + `"]`,
	} {
		change := func(name, _ string) string { return fmt.Sprintf("%q:%s", name, value) }
		for path, body := range map[string]string{publishPath: wholePublish, ticketsPath: wholeTicket} {
			everyMember(t, body, change, func(where, text string) { codeOf(t, where, d.do("POST", path, text, as(d.token))) })
			codeOf(t, path, d.do("POST", path, value, as(d.token)))
		}
		for _, frame := range []string{wholeJoin, wholeFrame, wholeAuth, wholeState, wholeResume} {
			everyMember(t, frame, change, func(_, text string) { p.code(text); _, _ = p.say(`{"op":"leave","sub":"s"}`) })
			p.code(value)
		}
	}
}
