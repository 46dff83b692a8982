package server

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// TLSListener returns ln for TLS to be served on, as by [http.Server.ServeTLS]: the
// connections of the rails then take turns like those without TLS. On another
// listener they work too, but each write holds a goroutine, beside all the others.
func TLSListener(ln net.Listener) net.Listener { return sealedListener{ln} }

type sealedListener struct{ net.Listener }

func (l sealedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sealed{Conn: nc}, nil
}

// sealed is the connection below a [tls.Conn]. Once a link has taken that over, it
// keeps what is written to it, so that TLS never waits for the peer: the link writes
// it, in its own turn, and nobody else does. TLS writes by itself too, while it reads
// and when it is closed; the link is kicked then.
type sealed struct {
	net.Conn // to the peer

	mu   sync.Mutex
	kick func() // nil until there is a link
	turn bool   // the link takes what is kept
	kept []byte
}

// maxUnasked bounds what TLS writes by itself before the link's turn. It answers
// what a peer asks for, also one that does not read.
const maxUnasked = 4 << 10

// sealedBelow returns what is below nc, nil where nc is none that was accepted by a
// [TLSListener].
func sealedBelow(nc net.Conn) *sealed {
	if c, ok := nc.(*tls.Conn); ok {
		s, _ := c.NetConn().(*sealed)
		return s
	}
	return nil
}

func (s *sealed) attach(kick func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kick = kick
}

func (s *sealed) Write(b []byte) (int, error) {
	s.mu.Lock()
	kick, turn := s.kick, s.turn
	if kick == nil {
		s.mu.Unlock()
		return s.Conn.Write(b)
	}
	if !turn && len(s.kept)+len(b) > maxUnasked {
		s.mu.Unlock()
		return 0, errUnexpectedInput
	}
	s.kept = append(s.kept, b...)
	s.mu.Unlock()
	if !turn {
		kick()
	}
	return len(b), nil
}

// SetWriteDeadline is TLS's, whose writes do not wait where there is a link. The
// link has deadlines of its own.
func (s *sealed) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kick != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

// seal appends to dst what is to be written: what TLS wrote by itself, and b as nc,
// which is above s, encrypts it. It is called by the link's driver.
func (s *sealed) seal(nc net.Conn, b, dst []byte) ([]byte, error) {
	s.mu.Lock()
	s.kept, s.turn = append(dst, s.kept...), true
	s.mu.Unlock()
	var err error
	if len(b) > 0 {
		_, err = nc.Write(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dst, s.kept, s.turn = s.kept, nil, false
	return dst, err
}
