package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
)

// floodNames are the floods, in their order.
var floodNames = []string{"publish", "fanout", "connect", "slow", "backlog", "history"}

// floods are what a tenant can do too much of. Each goroutine of one calls its
// function again and again, which counts what it did.
var floods = map[string]struct {
	unit       string
	goroutines int
	do         func(f *flooder, ctx context.Context, i int, done *atomic.Int64) error
}{
	"publish": {"events published", 200, (*flooder).publish},
	"fanout":  {"events delivered", 200, (*flooder).fanout},
	"connect": {"connections", 50, (*flooder).connect},
	"slow":    {"events read slowly", 500, (*flooder).slow},
	"backlog": {"events replayed", 50, (*flooder).backlog},
	"history": {"events of history", 50, (*flooder).history},
}

// The other tenant's backlog, which is behind stream "big".
const (
	floodBacklog = 20_000
	floodSize    = 1000
)

// childFlood is another tenant. It answers
//
//	target ADDRESS TOKEN   once the backlog is there
//	start NAMES            begins to do these floods at once
//	stop                   how much was done
//
// It has the lowest priority, so that what it costs itself is not measured.
func childFlood([]string) error {
	if err := yield(); err != nil {
		return err
	}
	f := &flooder{client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}}
	return serveLines(func(fields []string) (string, error) {
		switch fields[0] {
		case "target":
			f.t = target{fields[1], fields[2]}
			return "ok", f.fill()
		case "start":
			f.start(strings.Split(fields[1], ","))
			return "ok", nil
		case "stop":
			return f.stop(), nil
		}
		return own(fields)
	})
}

type flooder struct {
	t      target
	client *http.Client

	names   []string
	done    []*atomic.Int64
	failed  atomic.Int64
	started time.Time
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

var otherQuery = strings.Replace(query, "t_bench", otherTenant, 1)

func (f *flooder) fill() error {
	batch := strings.Repeat(event(twinrail.RailSSE, "big", string(benchData(floodSize)))+",", 100)
	for range floodBacklog / 100 {
		if _, err := f.t.post(f.client, otherQuery, batch[:len(batch)-1]); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // not over the limits
	}
	return nil
}

func (f *flooder) start(names []string) {
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.names, f.done, f.started = names, nil, time.Now()
	f.failed.Store(0)
	for _, name := range names {
		flood, done := floods[name], new(atomic.Int64)
		f.done = append(f.done, done)
		for i := range flood.goroutines {
			f.wg.Go(func() {
				for ctx.Err() == nil {
					if err := flood.do(f, ctx, i, done); err != nil && ctx.Err() == nil {
						f.failed.Add(1)
						time.Sleep(10 * time.Millisecond)
					}
				}
			})
		}
	}
}

func (f *flooder) stop() string {
	took := time.Since(f.started).Seconds()
	var b strings.Builder
	for i, name := range f.names {
		fmt.Fprintf(&b, "%.0f %s/s, ", float64(f.done[i].Load())/took, floods[name].unit)
	}
	fmt.Fprintf(&b, "%.0f refused/s", float64(f.failed.Load())/took)
	f.cancel()
	f.wg.Wait()
	f.client.CloseIdleConnections()
	return b.String()
}

func (f *flooder) publish(_ context.Context, i int, done *atomic.Int64) error {
	e := event(twinrail.RailSSE, fmt.Sprint("p", i%50), string(benchData(floodSize)))
	_, err := f.t.post(f.client, otherQuery, strings.TrimSuffix(strings.Repeat(e+",", 10), ","))
	if err == nil {
		done.Add(10)
	}
	return err
}

// fanout is subscribers of one stream; the first publishes to it.
func (f *flooder) fanout(ctx context.Context, i int, done *atomic.Int64) error {
	if i == 0 {
		time.Sleep(10 * time.Millisecond)
		_, err := f.t.post(f.client, otherQuery, event(twinrail.RailSSE, "fan", string(benchData(floodSize))))
		return err
	}
	return f.follow(ctx, "fan", "", 0, done)
}

// connect leaves as soon as there is something to read.
func (f *flooder) connect(_ context.Context, _ int, done *atomic.Int64) error {
	nc, br, err := f.t.dialIn(otherQuery, twinrail.RailSSE, "big", twinrail.CursorEarliest)
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err = br.ReadByte(); err == nil {
		done.Add(1)
	}
	return err
}

func (f *flooder) slow(ctx context.Context, _ int, done *atomic.Int64) error {
	return f.follow(ctx, "big", twinrail.CursorEarliest, 50*time.Millisecond, done)
}

func (f *flooder) backlog(ctx context.Context, _ int, done *atomic.Int64) error {
	return f.follow(ctx, "big", twinrail.CursorEarliest, 0, done)
}

func (f *flooder) history(ctx context.Context, _ int, done *atomic.Int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.t.addr+twinrail.PathHistory+"?"+otherQuery+"&canvas_id=big&limit=1000", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+f.t.token)
	resp, err := f.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	done.Add(1000)
	return err
}

// follow reads a stream to the end of its backlog, or where there is none as long
// as it goes on. It pauses after each few kilobytes.
func (f *flooder) follow(ctx context.Context, stream, cursor string, pause time.Duration, done *atomic.Int64) error {
	nc, br, err := f.t.dialIn(otherQuery, twinrail.RailSSE, stream, cursor)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	for since := 0; ; {
		line, err := br.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(line, []byte("data: {\"v\":1")):
			done.Add(1)
		case cursor != "" && bytes.Equal(line, []byte("event: live\n")):
			return nil
		}
		if since += len(line); pause > 0 && since > 16<<10 {
			since = 0
			time.Sleep(pause)
		}
	}
}

// event is one of a publish.
func event(rail twinrail.Rail, stream, data string) string {
	if rail == twinrail.RailWS {
		return fmt.Sprintf(`{"channel":"chat","type":"bench","routing":{"thread_id":%q},"data":%s}`, stream, data)
	}
	return fmt.Sprintf(`{"channel":"commit","type":"bench","routing":{"canvas_id":%q},"data":%s}`, stream, data)
}

// post publishes events over HTTP.
func (t target) post(client *http.Client, query, events string) ([]byte, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+t.addr+twinrail.PathPublish+"?"+query, strings.NewReader(`{"events":[`+events+`]}`))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+t.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("publish: %s %s", resp.Status, answer), err)
	}
	return answer, nil
}
