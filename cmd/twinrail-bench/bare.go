package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
)

// childBare is the program to compare with: it writes prepared bytes, the same
// as a server's, to all its sockets in turn, and knows nothing. Its first line is
// its address. It answers
//
//	send COUNT RATE SIZE RAIL GATHER   once it has written COUNT messages of
//	                                   SIZE bytes of data to every socket, at
//	                                   RATE a second, gathering for GATHER
func childBare([]string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b := &bare{}
	go b.accept(listener)
	fmt.Println(listener.Addr(), "none")
	return serveLines(func(fields []string) (string, error) {
		if fields[0] == "send" {
			return b.send(fields[1:])
		}
		return own(fields)
	})
}

type bare struct {
	mu    sync.Mutex
	conns []net.Conn
	seq   uint64
}

func (b *bare) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			br := bufio.NewReader(nc)
			for line := ""; line != "\r\n"; {
				if line, err = br.ReadString('\n'); err != nil {
					return
				}
			}
			b.mu.Lock()
			b.conns = append(b.conns, nc)
			b.mu.Unlock()
			fmt.Fprint(nc, "HTTP/1.1 200 OK\r\n\r\nevent: live\ndata: {}\n\n")
		}()
	}
}

func (b *bare) send(args []string) (string, error) {
	var count, rate, size int
	if err := numbers(args, &count, &rate, &size); err != nil {
		return "", err
	}
	gather, err := time.ParseDuration(args[4])
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	conns := b.conns
	b.mu.Unlock()
	var pending []byte
	var wrote time.Time
	started := time.Now()
	for i := range count {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		b.seq++
		pending = appendMessage(pending, b.seq, size, twinrail.Rail(args[3]))
		if i < count-1 && time.Since(wrote) < gather {
			continue
		}
		wrote = time.Now()
		for _, nc := range conns {
			if _, err := nc.Write(pending); err != nil {
				return "", err
			}
		}
		pending = pending[:0]
	}
	return "ok", nil
}

// appendMessage appends the bytes of one event, as long as a server's.
func appendMessage(dst []byte, seq uint64, size int, rail twinrail.Rail) []byte {
	in := twinrail.Routing{TenantID: "t_bench", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "a1", CanvasID: "s1", ActorID: "u_1"}
	id := strings.Repeat("0", 36)
	e := twinrail.Event{
		ID: id, Channel: twinrail.Commit, Type: "bench", Time: time.Now(), ActorType: twinrail.Human, Routing: in,
		RequestID: id, Traceparent: strings.Repeat("0", 55), Data: benchData(size),
	}
	c := twinrail.Cursor{Epoch: 1, Seq: seq}
	if rail == twinrail.RailSSE {
		dst = append(dst, "id: "+c.String()+"\nevent: commit\ndata: "...)
	} else {
		dst = append(dst, "\x81\x7e\x02\x80"+`{"op":"event","sub":"s","event":`...)
	}
	dst = e.AppendTail(twinrail.AppendPosition(e.AppendHead(dst), c, seq-1))
	if rail == twinrail.RailSSE {
		return append(dst, "\n\n"...)
	}
	return append(dst, '}')
}

func benchData(size int) []byte { return []byte(`"` + strings.Repeat("x", size) + `"`) }
