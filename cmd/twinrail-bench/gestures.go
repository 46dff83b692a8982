package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// storm is a canvas whose commits are timed, alone and while many actors gesture
// on it.
type storm struct {
	actors, rate int // gestures a second of each actor
	full, plain  int // readers of commits and gestures, and of commits alone
	commits      int // a second
	lasts        time.Duration

	server      *child
	t           target
	with, apart *audience // those readers
}

// gestures compares the latency of commits with and without a storm of gestures.
func gestures(args []string) error {
	var s storm
	var rounds int
	parse("gestures", args, func(fs *flag.FlagSet) {
		fs.IntVar(&s.actors, "actors", 200, "actors that gesture")
		fs.IntVar(&s.rate, "rate", 60, "gestures a second of each actor")
		fs.IntVar(&s.full, "n", 20, "readers of commits and gestures")
		fs.IntVar(&s.plain, "plain", 5, "readers of commits alone")
		fs.IntVar(&s.commits, "commits", 50, "commits a second")
		fs.DurationVar(&s.lasts, "for", 10*time.Second, "how long a run lasts")
		fs.IntVar(&rounds, "rounds", 3, "runs of each, in turn; medians are printed")
	})
	dir, err := os.MkdirTemp("", "twinrail-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if s.server, s.t, err = serve("-data", dir); err != nil {
		return err
	}
	defer s.server.stop()
	if err := s.prepare(); err != nil {
		return err
	}
	defer s.with.leave()
	defer s.apart.leave()
	var alone, under []stormRun
	for range rounds {
		for _, v := range []struct {
			into   *[]stormRun
			actors int
		}{{&alone, 0}, {&under, s.actors}} {
			r, err := s.run(v.actors)
			if err != nil {
				return err
			}
			*v.into = append(*v.into, r)
		}
	}
	s.print(alone, under)
	return nil
}

// prepare lets the tenant's gestures through, and brings the readers in.
func (s *storm) prepare() error {
	c, err := client.New(client.Options{URL: "http://" + s.t.addr, Token: s.t.token})
	if err != nil {
		return err
	}
	defer c.Close()
	in := twinrail.Routing{TenantID: "t_bench", Env: "dev"}
	for _, flag := range []struct{ name, value string }{{"gesture_rate", strconv.Itoa(s.rate)}, {"gesture_fanout", "true"}} {
		if _, err := c.SetFlag(ctx, in, flag.name, twinrail.FlagRequest{Value: []byte(flag.value)}); err != nil {
			return err
		}
	}
	s.with, s.apart = &audience{}, &audience{}
	if err := s.with.join(s.t, s.full, "&channels=commit,gesture"); err != nil {
		return err
	}
	return s.apart.join(s.t, s.plain, "&channels=commit")
}

// stormRun is what one run came to.
type stormRun struct {
	with, apart, answer delays // at the readers, and until the publisher had its answer

	accepted, refused, delivered float64 // gestures a second
	server, actors, readers      float64 // processors that each process took
	idle                         float64 // processors that nobody took
}

// delays are in microseconds.
type delays struct{ p50, p99 float64 }

func delaysOf(values []float64) delays {
	if len(values) == 0 {
		return delays{}
	}
	slices.Sort(values)
	return delays{median(values), values[len(values)*99/100]}
}

// run times commits while so many actors gesture.
func (s *storm) run(actors int) (stormRun, error) {
	load, err := start("child-actors")
	if err != nil {
		return stormRun{}, err
	}
	defer load.stop()
	for i := range actors {
		token, err := s.server.ask("token a_%d", i)
		if err != nil {
			return stormRun{}, err
		}
		if _, err := load.ask("dial %s %s", s.t.addr, token[0]); err != nil {
			return stormRun{}, err
		}
	}
	if _, err := load.ask("start %d", s.rate); err != nil {
		return stormRun{}, err
	}
	time.Sleep(time.Second) // until it is under way
	s.with.reset()
	s.apart.reset()
	before, err := s.account(load)
	if err != nil {
		return stormRun{}, err
	}
	answers, err := s.publish()
	if err != nil {
		return stormRun{}, err
	}
	after, err := s.account(load)
	if err != nil {
		return stormRun{}, err
	}
	r := after.since(before)
	r.answer = delaysOf(answers)
	if r.with, err = s.with.delays(len(answers)); err != nil {
		return stormRun{}, err
	}
	r.apart, err = s.apart.delays(len(answers))
	return r, err
}

// publish makes the commits of a run; it returns how long each answer took. A
// moment at which the answer to the last one is not there yet is left out: two
// commits within the gather interval would measure that.
func (s *storm) publish() (answers []float64, err error) {
	c := &http.Client{}
	defer c.CloseIdleConnections()
	count := int(s.lasts.Seconds() * float64(s.commits))
	each := time.Second / time.Duration(s.commits)
	pad := benchData(200)
	started := time.Now()
	for range count {
		time.Sleep(each - time.Since(started)%each)
		sent := time.Now()
		if err := s.t.publish(c, twinrail.RailSSE, fmt.Sprintf(`{"sent":%d,"pad":%s}`, sent.UnixNano(), pad)); err != nil {
			return nil, err
		}
		answers = append(answers, float64(time.Since(sent).Microseconds()))
	}
	return answers, nil
}

// account is what was counted up to a moment.
type account struct {
	at                          time.Time
	accepted, refused, seen     float64
	server, actors, self, spare float64 // processor seconds
}

func (s *storm) account(load *child) (a account, err error) {
	a.at, a.self, a.seen = time.Now(), cpuSeconds(), float64(s.with.gestures.Load())
	if a.spare, err = idleSeconds(); err != nil {
		return a, err
	}
	if a.server, err = s.server.number("cpu"); err != nil {
		return a, err
	}
	if a.actors, err = load.number("cpu"); err != nil {
		return a, err
	}
	counted, err := load.ask("count")
	if err != nil {
		return a, err
	}
	var accepted, refused int
	err = numbers(counted, &accepted, &refused)
	a.accepted, a.refused = float64(accepted), float64(refused)
	return a, err
}

func (a account) since(b account) stormRun {
	took := a.at.Sub(b.at).Seconds()
	return stormRun{
		accepted: (a.accepted - b.accepted) / took, refused: (a.refused - b.refused) / took, delivered: (a.seen - b.seen) / took,
		server: (a.server - b.server) / took, actors: (a.actors - b.actors) / took, readers: (a.self - b.self) / took,
		idle: (a.spare - b.spare) / took,
	}
}

// idleSeconds returns for how many processor seconds the machine had nothing to do.
func idleSeconds() (float64, error) {
	const ticks = 100 // a second, on every Linux
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, wait int
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &wait); err != nil {
		return 0, err
	}
	return float64(idle+wait) / ticks, nil
}

func (s *storm) print(alone, under []stormRun) {
	of := func(runs []stormRun, value func(stormRun) float64) float64 {
		values := make([]float64, len(runs))
		for i, r := range runs {
			values[i] = value(r)
		}
		return median(values)
	}
	compare := func(what string, pick func(stormRun) delays) {
		p50 := func(r stormRun) float64 { return pick(r).p50 }
		p99 := func(r stormRun) float64 { return pick(r).p99 }
		fmt.Printf("%s: p50 %.0f us alone, %.0f us under gestures: ratio %.2f; p99 %.0f us, %.0f us: ratio %.2f\n", what,
			of(alone, p50), of(under, p50), of(under, p50)/of(alone, p50),
			of(alone, p99), of(under, p99), of(under, p99)/of(alone, p99))
	}
	fmt.Printf("%d actors with %d gestures/s each, on a canvas with %d commits/s\n", s.actors, s.rate, s.commits)
	compare(fmt.Sprintf("commits at %d readers of both", s.full), func(r stormRun) delays { return r.with })
	compare(fmt.Sprintf("commits at %d readers of commits alone", s.plain), func(r stormRun) delays { return r.apart })
	compare("answers to the publisher", func(r stormRun) delays { return r.answer })
	fmt.Printf("%.0f gestures/s accepted, %.0f/s refused, %.0f/s delivered\n",
		of(under, func(r stormRun) float64 { return r.accepted }), of(under, func(r stormRun) float64 { return r.refused }),
		of(under, func(r stormRun) float64 { return r.delivered }))
	for _, v := range []struct {
		what string
		runs []stormRun
	}{{"alone", alone}, {"under gestures", under}} {
		fmt.Printf("processors, %s: server %.2f, actors %.2f, readers %.2f; %.2f of %d idle\n", v.what,
			of(v.runs, func(r stormRun) float64 { return r.server }), of(v.runs, func(r stormRun) float64 { return r.actors }),
			of(v.runs, func(r stormRun) float64 { return r.readers }), of(v.runs, func(r stormRun) float64 { return r.idle }), runtime.NumCPU())
	}
}

// audience is readers of the canvas in this process.
type audience struct {
	conns    []net.Conn
	wg       sync.WaitGroup
	gestures atomic.Int64

	mu   sync.Mutex
	late []float64 // microseconds from before a commit's publish to one reader
}

func (a *audience) join(t target, n int, channels string) error {
	for range n {
		nc, br, err := t.dialSSE("", channels)
		if err == nil {
			err = untilLive(br)
		}
		if err != nil {
			return err
		}
		a.conns = append(a.conns, nc)
		a.wg.Go(func() { a.read(br) })
	}
	return nil
}

func (a *audience) leave() {
	shut(a.conns)
	a.wg.Wait()
}

func (a *audience) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late = nil
}

var (
	gestureLine = []byte("event: gesture\n")
	sentMark    = []byte(`"data":{"sent":`)
)

// read counts gestures, and times commits, until the connection is closed.
func (a *audience) read(br *bufio.Reader) {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return
		}
		if bytes.Equal(line, gestureLine) {
			a.gestures.Add(1)
			continue
		}
		_, text, found := bytes.Cut(line, sentMark)
		if !found {
			continue
		}
		now := time.Now()
		sent, _ := strconv.ParseInt(string(text[:max(0, bytes.IndexByte(text, ','))]), 10, 64)
		a.mu.Lock()
		a.late = append(a.late, float64(now.Sub(time.Unix(0, sent)).Microseconds()))
		a.mu.Unlock()
	}
}

// delays waits until every reader has every commit, and returns how late they
// were.
func (a *audience) delays(commits int) (delays, error) {
	want := commits * len(a.conns)
	const patience = 100 // tenths of a second
	for range patience {
		a.mu.Lock()
		late := slices.Clone(a.late)
		a.mu.Unlock()
		if len(late) == want {
			return delaysOf(late), nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return delays{}, fmt.Errorf("not each of %d commits came once to each of %d readers", commits, len(a.conns))
}

// childActors is many actors that gesture. It answers
//
//	dial ADDRESS TOKEN   once one more actor is connected
//	start RATE           once all of them publish so many gestures a second each
//	count                how many gestures were accepted, and refused, so far
func childActors([]string) error {
	var a actors
	return serveLines(func(fields []string) (string, error) {
		switch fields[0] {
		case "dial":
			return "ok", a.dial(target{fields[1], fields[2]})
		case "start":
			var rate int
			if err := numbers(fields[1:], &rate); err != nil {
				return "", err
			}
			return "ok", a.start(rate)
		case "count":
			return fmt.Sprintf("%d %d", a.accepted.Load(), a.refused.Load()), nil
		}
		return own(fields)
	})
}

// actors live as long as their process.
type actors struct {
	conns             []net.Conn
	accepted, refused atomic.Int64
}

func (a *actors) dial(t target) error {
	nc, br, err := t.dialWS("")
	if err == nil {
		err = untilLive(br)
	}
	if err != nil {
		return err
	}
	a.conns = append(a.conns, nc)
	go a.read(br)
	return nil
}

// read counts the answers.
func (a *actors) read(br *bufio.Reader) {
	payload := make([]byte, 0, 4<<10)
	for {
		h, err := ws.ReadHeader(br)
		if err != nil || h.Length > int64(cap(payload)) {
			return
		}
		payload = payload[:h.Length]
		if _, err := io.ReadFull(br, payload); err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(payload, []byte(`{"op":"ack"`)):
			a.accepted.Add(1)
		case bytes.HasPrefix(payload, []byte(`{"op":"error"`)):
			a.refused.Add(1)
		}
	}
}

func (a *actors) start(rate int) error {
	if rate <= 0 {
		return errors.New("a rate must be positive")
	}
	each := time.Second / time.Duration(rate)
	for i, nc := range a.conns {
		go gesture(nc, time.Duration(i)*each/time.Duration(len(a.conns)), each)
	}
	return nil
}

// gesture moves an actor's pointer, after a first wait, until the connection is
// closed.
func gesture(nc net.Conn, wait, each time.Duration) {
	pad := strings.Repeat("x", 40) // what else a pointer tells: a colour, a tool
	started := time.Now().Add(wait)
	for i := 0; ; i++ {
		time.Sleep(time.Until(started.Add(time.Duration(i) * each)))
		frame := fmt.Sprintf(`{"op":"publish","events":[{"channel":"gesture","type":"pointer",`+
			`"routing":{"canvas_id":"s1"},"data":{"x":%d,"y":%d,"as":%q}}]}`, i%1920, i%1080, pad)
		if _, err := nc.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewTextFrame([]byte(frame))))); err != nil {
			return
		}
	}
}
