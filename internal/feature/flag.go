package feature

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/twinrail/twinrail"
)

// Flags is what all flags are for a tenant and env at one moment. Nobody changes
// it.
type Flags struct {
	// WS and SSE say whether the rail is on.
	WS, SSE bool
	// GestureFanout says whether gestures are delivered.
	GestureFanout bool
	// GestureRate is how many gestures an actor may publish in a second: 1 to 1000.
	GestureRate int
	// Replay says whether what lies before the head may be read.
	Replay bool
}

// AllowsRail reports whether the rail is on. The rail "" is plain HTTP, which
// always is.
func (f *Flags) AllowsRail(rail twinrail.Rail) bool {
	switch rail {
	case twinrail.RailWS:
		return f.WS
	case twinrail.RailSSE:
		return f.SSE
	}
	return true
}

// flag is one that there is. Its values are integers, those of a boolean 0 and 1.
type flag struct {
	name        string
	boolean     bool
	builtIn     int
	least, most int
	put         func(*Flags, int)
}

// flagTable has all flags. Their names are part of what is stored.
var flagTable = [...]flag{
	{"ws_enabled", true, 1, 0, 1, func(f *Flags, v int) { f.WS = v == 1 }},
	{"sse_enabled", true, 1, 0, 1, func(f *Flags, v int) { f.SSE = v == 1 }},
	{"gesture_fanout", true, 0, 0, 1, func(f *Flags, v int) { f.GestureFanout = v == 1 }},
	{"gesture_rate", false, 30, 1, 1000, func(f *Flags, v int) { f.GestureRate = v }},
	{"replay", true, 1, 0, 1, func(f *Flags, v int) { f.Replay = v == 1 }},
}

// find returns the flag of that name, or nil.
func find(name string) *flag {
	for i := range flagTable {
		if flagTable[i].name == name {
			return &flagTable[i]
		}
	}
	return nil
}

// parse reads a value from its JSON. An error has code bad_request and field
// value.
func (f *flag) parse(text []byte) (int, error) {
	v := jsontext.Value(text)
	switch kind := v.Kind(); {
	case len(v) == 0:
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "value", "must be given")
	case !v.IsValid():
	case f.boolean && kind == 't':
		return 1, nil
	case f.boolean && kind == 'f':
		return 0, nil
	case !f.boolean && kind == '0': // a number
		n, err := strconv.Atoi(strings.Trim(string(v), " \t\r\n"))
		if err == nil && f.least <= n && n <= f.most {
			return n, nil
		}
	}
	if f.boolean {
		return 0, twinrail.Errorf(twinrail.CodeBadRequest, "value", "must be true or false")
	}
	return 0, twinrail.Errorf(twinrail.CodeBadRequest, "value", "must be an integer from %d to %d", f.least, f.most)
}

// format is the inverse of parse.
func (f *flag) format(value int) []byte {
	if f.boolean {
		return strconv.AppendBool(nil, value == 1)
	}
	return strconv.AppendInt(nil, int64(value), 10)
}
