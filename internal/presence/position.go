package presence

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinrail/twinrail"
)

// Position is a place in the order of those present in a stream: right after one
// of them. It is the member's for as long as that stays, and says nothing of those
// at other addresses, nor of how many there are. The zero value is before all.
type Position struct {
	at    int64 // when the member came, in microseconds; each at one address another
	place string
}

// ParsePosition is the inverse of [Position.String]. Its errors have code
// bad_request and field after.
func ParsePosition(text string) (Position, error) {
	at, place, _ := strings.Cut(text, ".")
	n, _ := strconv.ParseInt(at, 10, 64) // what cannot be parsed comes out as another text
	p := Position{n, place}
	if p.String() != text || n < 0 || !isPlace(place) {
		return Position{}, twinrail.Errorf(twinrail.CodeBadRequest, "after", "must be the next of another page")
	}
	return p, nil
}

// isPlace reports whether name may be that of a [place]: an audience has five keys.
func isPlace(name string) bool {
	values := strings.Split(name, ".")
	return len(values) <= 5 && !slices.ContainsFunc(values, func(v string) bool {
		return v != "" && !twinrail.ValidKeyValue(twinrail.KeyPanel, v)
	})
}

// String returns p for clients: of A-Z a-z 0-9 . _ -, and "" for the zero value.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return strings.TrimRight(strconv.FormatInt(p.at, 10)+"."+p.place, ".")
}

func (p Position) compare(other Position) int {
	return cmp.Or(cmp.Compare(p.at, other.at), cmp.Compare(p.place, other.place))
}
