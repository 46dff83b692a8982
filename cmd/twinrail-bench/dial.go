package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/twinrail/twinrail"
)

var ctx = context.Background()

// target is where a benchmark connects to.
type target struct {
	addr, token string
}

// serve starts a server child.
func serve(args ...string) (*child, target, error) {
	c, err := start("child-serve", args...)
	if err != nil {
		return nil, target{}, err
	}
	fields, err := c.line()
	if err != nil {
		c.stop()
		return nil, target{}, err
	}
	return c, target{fields[0], fields[1]}, nil
}

// dial opens a connection of the rail that follows stream "s1", and reads until
// it is live.
func (t target) dial(rail twinrail.Rail, after string) (net.Conn, *bufio.Reader, error) {
	if rail == twinrail.RailWS {
		return t.dialWS(after)
	}
	return t.dialSSE(after)
}

// dialSSE takes further parameters as they stand in a query, each after its "&".
func (t target) dialSSE(cursor string, params ...string) (net.Conn, *bufio.Reader, error) {
	return t.dialSSEIn(query, "s1", cursor, params...)
}

// dialIn is dial for a stream in the context of query.
func (t target) dialIn(query string, rail twinrail.Rail, stream, after string) (net.Conn, *bufio.Reader, error) {
	if rail == twinrail.RailWS {
		return t.dialWSIn(query, stream, after)
	}
	return t.dialSSEIn(query, stream, after)
}

func (t target) dialSSEIn(query, stream, cursor string, params ...string) (net.Conn, *bufio.Reader, error) {
	nc, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(nc, "GET %s%s?%s&cursor=%s%s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n",
		twinrail.PathSSECanvases, stream, query, cursor, strings.Join(params, ""), t.token)
	br := bufio.NewReaderSize(nc, 64<<10)
	status, err := br.ReadString('\n')
	if err != nil || !strings.HasPrefix(status, "HTTP/1.1 200") {
		return nil, nil, errors.Join(fmt.Errorf("dial: %s", status), err)
	}
	return nc, br, nil
}

func (t target) dialWS(after string) (net.Conn, *bufio.Reader, error) {
	return t.dialWSIn(query, "s1", after)
}

func (t target) dialWSIn(query, stream, after string) (net.Conn, *bufio.Reader, error) {
	dialer := ws.Dialer{
		Protocols: []string{twinrail.Subprotocol},
		Header:    ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + t.token}}),
	}
	nc, br, _, err := dialer.Dial(ctx, "ws://"+t.addr+twinrail.PathWS+"?"+query)
	if err != nil {
		return nil, nil, err
	}
	if br == nil {
		br = bufio.NewReaderSize(nc, 64<<10)
	}
	join := fmt.Sprintf(`{"op":"join","sub":"s","routing":{"thread_id":%q},"after":%q}`, stream, after)
	return nc, br, wsutil.WriteClientText(nc, []byte(join))
}

// untilLive reads until the backlog is done.
func untilLive(br *bufio.Reader) error {
	const sse, wsFrame = "event: live\n", `{"op":"live"`
	var seen []byte
	for {
		b, err := br.ReadByte()
		if err != nil {
			return err
		}
		seen = append(seen, b)
		if strings.HasSuffix(string(seen[max(0, len(seen)-len(sse)):]), sse) {
			return skip(br, 2)
		}
		if strings.HasSuffix(string(seen[max(0, len(seen)-len(wsFrame)):]), wsFrame) {
			_, err := br.ReadString('}')
			return err
		}
	}
}

// skip reads n more lines.
func skip(br *bufio.Reader, n int) error {
	for range n {
		if _, err := br.ReadString('\n'); err != nil {
			return err
		}
	}
	return nil
}

// publish sends one event over HTTP on a connection that is kept.
func (t target) publish(client *http.Client, rail twinrail.Rail, data string) error {
	channel, key := twinrail.Commit, "canvas_id"
	if rail == twinrail.RailWS {
		channel, key = twinrail.Chat, "thread_id"
	}
	body := fmt.Sprintf(`{"events":[{"channel":%q,"type":"bench","data":%s}]}`, channel, data)
	r, err := http.NewRequest(http.MethodPost, "http://"+t.addr+twinrail.PathPublish+"?"+query+"&"+key+"=s1", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+t.token)
	r.Header.Set("Content-Type", "application/json")
	client.Timeout = 10 * time.Second
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("publish: %s %s", resp.Status, answer), err)
	}
	return nil
}
