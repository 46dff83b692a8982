package twinrail_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

var cursorForm = regexp.MustCompile(`\A[A-Za-z0-9._-]{1,128}\z`)

func TestCursorText(t *testing.T) {
	c := twinrail.Cursor{Epoch: 0x0123456789abcdef, Seq: 42, Check: 1<<twinrail.CheckBits - 2}
	// Clients keep cursors, so the text of one must never change.
	if want := "AQEjRWeJq83vAAAAAAAAACr________-"; c.String() != want {
		t.Errorf("got %s, want %s", c, want)
	}
	type holder struct{ C twinrail.Cursor }
	encoded, err := json.Marshal(holder{c})
	if err != nil || string(encoded) != `{"C":"`+c.String()+`"}` {
		t.Errorf("got %s, %v", encoded, err)
	}
	var decoded holder
	if err := json.Unmarshal(encoded, &decoded); err != nil || decoded.C != c {
		t.Errorf("got %+v, %v", decoded, err)
	}
	if appended, err := c.AppendText([]byte("x")); err != nil || string(appended) != "x"+c.String() {
		t.Errorf("got %s, %v", appended, err)
	}
	before := decoded
	if err := json.Unmarshal([]byte(`{"C":"earliest"}`), &decoded); err == nil || decoded != before {
		t.Errorf("got %+v, %v", decoded, err)
	}
}

func TestParseCursorRefuses(t *testing.T) {
	good := twinrail.Cursor{Epoch: 1, Seq: 2, Check: 3}.String()
	if _, err := twinrail.ParseCursor(good); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", twinrail.CursorEarliest, "head", good[1:], good + "A", good + "=", " " + good[1:], good[:31] + "\n",
		good[:4] + "\n" + good[5:], "A" + good[1:2] + "\r\n" + good[4:], strings.Replace(good, "A", "+", 1), strings.Replace(good, "A", "/", 1),
		"B" + good[1:], "AA" + good[2:], strings.Repeat("A", twinrail.CursorLen), strings.Repeat("é", twinrail.CursorLen/2),
	} {
		if c, err := twinrail.ParseCursor(text); err == nil {
			t.Errorf("%q parses as %+v", text, c)
		}
	}
}

// FuzzCursor says that cursors and their texts are one to one.
func FuzzCursor(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint64(0), "")
	f.Add(^uint64(0), ^uint64(0), ^uint64(0), twinrail.Cursor{Epoch: 7, Seq: 8, Check: 9}.String())
	f.Fuzz(func(t *testing.T, epoch, seq, check uint64, text string) {
		c := twinrail.Cursor{Epoch: epoch, Seq: seq, Check: check >> (64 - twinrail.CheckBits)}
		s := c.String()
		if parsed, err := twinrail.ParseCursor(s); err != nil || parsed != c {
			t.Errorf("%+v is %s, which parses as %+v, %v", c, s, parsed, err)
		}
		if len(s) != twinrail.CursorLen || !cursorForm.MatchString(s) || s == twinrail.CursorEarliest {
			t.Errorf("%+v is %q", c, s)
		}
		if parsed, err := twinrail.ParseCursor(text); err == nil && parsed.String() != text {
			t.Errorf("%q parses as %+v, which is %q", text, parsed, parsed.String())
		}
	})
}
