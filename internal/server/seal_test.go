package server

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// sayer is a rail that has the given bytes to say, one write after the other.
type sayer struct{ says [][]byte }

func (r *sayer) gather(_ context.Context, out []byte) ([]byte, next, error) {
	if len(r.says) > 0 {
		out, r.says = append(out, r.says[0]...), r.says[1:]
	}
	return out, thenRest, nil
}

func (*sayer) said(out []byte) []byte       { return out }
func (*sayer) lags() bool                   { return false }
func (*sayer) readable()                    {}
func (*sayer) tick(now time.Time) time.Time { return now.Add(time.Hour) }
func (*sayer) end(error)                    {}

// overTLS returns both ends of a connection over TLS on loopback, the server's as a
// link of r's server that was not started.
func (r *rig) overTLS(rail rail) (*link, *tls.Conn) {
	r.t.Helper()
	cert, roots := certificate(r.t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	ln := tls.NewListener(TLSListener(tcp), &tls.Config{Certificates: []tls.Certificate{cert}})
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := ln.Accept()
		if err == nil {
			err = nc.(*tls.Conn).Handshake()
		}
		if err != nil {
			r.t.Error(err)
		}
		accepted <- nc
	}()
	client, err := tls.Dial("tcp", tcp.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "twinrail.test"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(patience))
	l := newLink(r.server.engine, tenant{"t_acme", "dev"}, <-accepted, rail, nil)
	r.t.Cleanup(func() { l.close(nil) })
	return l, client
}

// TestTLSTurn writes over TLS within the turn of whoever drives the link, which
// leaves it only for what the peer does not take at once.
func TestTLSTurn(t *testing.T) {
	hello, large := []byte("hello"), bytes.Repeat([]byte("large"), 2<<20)
	l, client := newRig(t).overTLS(&sayer{says: [][]byte{hello, large}})
	_ = client.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10)
	resigned := 0
	resign := func() { resigned++ }
	got := make([]byte, len(hello))
	l.state.Store(running)
	if stays := l.round(l.rail.gather, l.goOn, resign); !stays || resigned != 0 {
		t.Errorf("a small write: stays %v, resigned %d times", stays, resigned)
	}
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, hello) {
		t.Fatalf("read %q, %v", got, err)
	}
	read := make(chan error, 1)
	got = make([]byte, len(large))
	l.state.Store(running)
	stays := l.round(l.rail.gather, l.goOn, func() {
		resign()
		go func() {
			_, err := io.ReadFull(client, got)
			read <- err
		}()
	})
	if stays || resigned != 1 {
		t.Fatalf("a large write: stays %v, resigned %d times", stays, resigned)
	}
	if err := <-read; err != nil || !bytes.Equal(got, large) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// dialTLS has r's clients come over TLS, with config changed.
func (r *rig) dialTLS(change func(*tls.Config)) {
	addr, config := r.secure()
	r.dial = func() (net.Conn, error) {
		c := config("http/1.1")
		change(c)
		return tls.Dial("tcp", addr, c)
	}
}

// TestTLSKeyUpdate has a client ask for new keys while the server writes: TLS answers
// that by itself, from a read, and all stays in order.
func TestTLSKeyUpdate(t *testing.T) {
	r := newRig(t)
	var secrets bytes.Buffer
	r.dialTLS(func(c *tls.Config) { c.KeyLogWriter, c.MinVersion = &secrets, tls.VersionTLS13 })
	c := r.tail(canvasPath)
	c.open()
	c.toLive()
	stop := r.rush(commit)
	c.events(10)
	conn := c.nc.(*tls.Conn)
	if suite := conn.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		stop()
		t.Skip("the client chose ", tls.CipherSuiteName(suite))
	}
	if _, err := conn.NetConn().Write(keyUpdate(t, secrets.String())); err != nil {
		t.Fatal(err)
	}
	prev := c.event().Seq
	for range 500 {
		e := c.event()
		if e.Seq != prev+1 {
			t.Fatalf("%d after %d", e.Seq, prev)
		}
		prev = e.Seq
	}
	stop()
}

// keyUpdate returns a record that asks for new keys, RFC 8446 section 4.6.3, of a
// client that has sent one record of data.
func keyUpdate(t *testing.T, log string) []byte {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	expand := func(label string, n int) []byte {
		label = "tls13 " + label
		info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
		out, err := hkdf.Expand(sha256.New, secret, string(append(append(info, label...), 0)), n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := expand("iv", aead.NonceSize())
	nonce[len(nonce)-1] ^= 1 // the second record
	// The message key_update with update_requested, in a record of handshakes.
	plain := []byte{24, 0, 0, 1, 1, 22}
	head := []byte{23, 3, 3, 0, byte(len(plain) + aead.Overhead())}
	return aead.Seal(head, nonce, plain, head)
}

// TestTLSUnasked bounds what TLS writes by itself for a link that has no turn.
func TestTLSUnasked(t *testing.T) {
	kicks := 0
	s := &sealed{}
	s.attach(func() { kicks++ })
	b := []byte("an answer")
	for n := len(b); ; n += len(b) {
		_, err := s.Write(b)
		if over := n > maxUnasked; over != (err != nil) {
			t.Fatalf("after %d bytes: %v", n, err)
		} else if over {
			break
		}
	}
	if out, err := s.seal(nil, nil, []byte("first ")); err != nil || !bytes.HasPrefix(out, []byte("first an answer")) || len(out) > maxUnasked+6 || kicks == 0 {
		t.Errorf("%d bytes to write, %v; %d kicks", len(out), err, kicks)
	}
	if _, err := s.Write(b); err != nil {
		t.Error(err)
	}
}

// TestTLSTooSlow has a client that stops to read: it is given up after the write
// timeout, though TLS has taken all that was written.
func TestTLSTooSlow(t *testing.T) {
	// The client must have read what comes before it stops.
	r := newRig(t, func(o *Options) { o.WriteTimeout = 3 * time.Second })
	r.dialTLS(func(*tls.Config) {})
	r.store(40_000)
	c := r.tail(canvasPath + "&cursor=earliest")
	c.open()
	_ = c.nc.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096)
	eventually(t, "the stream is given up", func() bool {
		return r.metric(`twinrail_connections_closed_total{code="too_slow",rail="sse"}`) == 1
	})
}

// recorder keeps what is read.
type recorder struct {
	net.Conn
	read []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read = append(r.read, b[:n]...)
	return n, err
}

// last returns the type of the last record, RFC 5246 section 6.2.1.
func (r *recorder) last() (kind byte) {
	for b := r.read; len(b) >= 5; b = b[min(len(b), 5+int(binary.BigEndian.Uint16(b[3:]))):] {
		kind = b[0]
	}
	return kind
}

// TestTLSEnd has the server end connections: the last that is written is TLS's own
// word of the end, by which a client can tell it from a cut.
func TestTLSEnd(t *testing.T) {
	for name, open := range map[string]func(*rig) net.Conn{
		"SSE": func(r *rig) net.Conn {
			c := r.tail(canvasPath)
			c.open()
			c.toLive()
			return c.nc
		},
		"WS": func(r *rig) net.Conn {
			p := r.peer()
			for range 100 {
				p.say(`{"op":"ping"}`)
				p.want(twinrail.OpPong)
			}
			return p.nc
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			addr, config := r.secure()
			heard := new(recorder)
			r.dial = func() (net.Conn, error) {
				c := config("http/1.1")
				c.MaxVersion = tls.VersionTLS12 // with which the types are plain to see
				var err error
				heard.Conn, err = net.Dial("tcp", addr)
				return tls.Client(heard, c), err
			}
			nc := open(r)
			r.setFlag(strings.ToLower(name)+"_enabled", "false")
			_ = nc.SetDeadline(time.Now().Add(patience))
			rest, err := io.ReadAll(nc)
			if err != nil || !bytes.Contains(rest, []byte(twinrail.CodeRailDisabled)) {
				t.Errorf("it ends with %q, %v", rest, err)
			}
			if kind := heard.last(); kind != 21 {
				t.Errorf("the last record is of type %d, want an alert", kind)
			}
		})
	}
}
