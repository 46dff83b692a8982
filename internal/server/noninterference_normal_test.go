package server

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/twinrail/twinrail"
)

// normalizer gives what is drawn at random a name, by its first appearance, so
// that of two transcripts the names are the same where what they stand for is the
// same within each. Times need no normalizing: in a bubble they are simulated, and
// the same in both runs.
type normalizer struct {
	names map[string]string
	count map[string]int
}

// kinds of what is drawn at random.
const (
	isCursor  = "cursor"  // 64 bits of the log's identity, 56 of the event's; seq is not random
	isConn    = "conn"    // 130 bits
	isSession = "session" // 130 bits
	isUUID    = "uuid"    // 74 bits, of events and requests that were given no id
	isTrace   = "trace"   // 192 bits, of requests that came with none
	isResume  = "resume"  // has the session's id, and a signature by a random key
	isTicket  = "ticket"  // 256 bits
	isCookie  = "cookie"  // 256 bits

	niShortest = len("c_") + 26 // of their words

	isUsed = "used ticket" // to have been one
)

var (
	niID    = regexp.MustCompile(`^[cs]_[a-z2-7]{26}$`)
	niUUID  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	niTrace = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)
	// niRetry is drawn for each connection, so that not all come back at once.
	niRetry = regexp.MustCompile(`(?m)\bretry: [0-9]{4,5}$`)
)

const niCookieIs = "__Host-twinrail="

// kindOf returns what the word at line[from:to] is that was drawn, or "".
func kindOf(line string, from, to int) string {
	word := line[from:to]
	if len(word) < niShortest {
		return ""
	}
	switch {
	case len(word) == twinrail.CursorLen:
		// A word that only looks like a cursor would have an enormous seq.
		if c, err := twinrail.ParseCursor(word); err == nil && c.Seq < 1<<32 {
			return isCursor
		}
	case niID.MatchString(word) && word[0] == 'c':
		return isConn
	case niID.MatchString(word):
		return isSession
	case niUUID.MatchString(word):
		return isUUID
	case niTrace.MatchString(word):
		return isTrace
	case strings.HasPrefix(word, "r1.") && strings.Count(word, ".") == 2:
		return isResume
	case len(word) == 43 && strings.HasSuffix(line[:from], niCookieIs):
		return isCookie
	case len(word) == 43 && strings.HasSuffix(line[:from], `"ticket":"`):
		return isTicket
	}
	return ""
}

// eachDrawn calls f for each word of line that was drawn.
func eachDrawn(line string, f func(kind string, from, to int)) {
	for from := 0; from < len(line); from++ {
		to := from
		for to < len(line) && inWord(line[to]) {
			to++
		}
		if kind := kindOf(line, from, to); kind != "" {
			f(kind, from, to)
		}
		from = to
	}
}

func inWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_.-", c) >= 0
}

func (n *normalizer) normalize(line string) string {
	var b strings.Builder
	last := 0
	eachDrawn(line, func(kind string, from, to int) {
		b.WriteString(line[last:from])
		last = to
		if kind != isCursor {
			b.WriteString(n.name(kind, line[from:to]))
			return
		}
		c, _ := twinrail.ParseCursor(line[from:to]) // which kindOf has done
		fmt.Fprintf(&b, "(cursor of %s after %d, %s)", n.name("log", fmt.Sprint(c.Epoch)), c.Seq, n.name("event", fmt.Sprint(c.Epoch, c.Check)))
	})
	b.WriteString(line[last:])
	return niRetry.ReplaceAllString(b.String(), "retry: (drawn)")
}

func (n *normalizer) name(kind, value string) string {
	if n.names == nil {
		n.names, n.count = make(map[string]string), make(map[string]int)
	}
	key := kind + " " + value
	if n.names[key] == "" {
		n.count[kind]++
		n.names[key] = fmt.Sprintf("(%s %d)", kind, n.count[kind])
	}
	return n.names[key]
}
