package server

import "time"

const (
	// expiryNotice is how long before its credential's end a connection is told.
	expiryNotice = 30 * time.Second
	// farewellTime is how long a connection whose end is decided has for its last
	// write. A revocation, for one, must not wait for a peer that takes nothing.
	farewellTime = time.Second
	// stuckTime is how long an HTTP/2 connection then has to take that the stream is
	// cut off. It has others', too, and may only be slow; but one that takes nothing
	// keeps all its streams. The two look the same for as long as the system's buffers
	// have no room: with some megabytes in them, for seconds at 400 KB/s.
	stuckTime = 4 * time.Second
)

// lifetime tells a connection what its credential's end asks for. Its zero value
// has told nothing.
type lifetime struct {
	warned time.Time // the end that was warned of
}

// at returns what is due at now where the credential ends at expires: a warning,
// once for each end, or the connection's own end; and when to ask again.
func (l *lifetime) at(now, expires time.Time) (warn, over bool, next time.Time) {
	if !now.Before(expires) {
		return false, true, now.Add(farewellTime)
	}
	if l.warned.Equal(expires) {
		return false, false, expires
	}
	if notice := expires.Add(-expiryNotice); now.Before(notice) {
		return false, false, notice
	}
	l.warned = expires
	return true, false, expires
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
