package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// soak loads a server on the disk journal in all ways at once, for as long as it
// is told, and prints what the server takes meanwhile. It fails where that is not
// given back once the load has ended, and where a client saw an error.
func soak(args []string) error {
	var duration, every time.Duration
	var n int
	parse("soak", args, func(fs *flag.FlagSet) {
		fs.DurationVar(&duration, "for", 10*time.Minute, "how long the load lasts")
		fs.DurationVar(&every, "every", 10*time.Second, "how often figures are printed")
		fs.IntVar(&n, "n", 40, "followers of each rail")
	})
	if duration <= 0 || every <= 0 || n <= 0 {
		return errors.New("-for, -every and -n must be more than 0")
	}
	data, err := os.MkdirTemp("", "twinrail-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	c, t, err := serve("-data", data)
	if err != nil {
		return err
	}
	defer c.stop()
	s := &soaking{target: t, child: c, data: data, began: time.Now(), cuts: cutter{conns: make(map[*cutConn]struct{})}}
	if err := s.prepare(); err != nil {
		return err
	}
	before, err := s.rest("start")
	if err != nil {
		return err
	}
	if err := s.run(duration, every, n); err != nil {
		return err
	}
	if err := s.settle(before); err != nil {
		return err
	}
	if failed := s.failed.Load(); failed > 0 {
		return fmt.Errorf("%d errors, the first of them: %w", failed, *s.first.Load())
	}
	return nil
}

// soaking is a server under load.
type soaking struct {
	target target
	data   string // the journal's directory
	began  time.Time
	cuts   cutter

	asking sync.Mutex // guards child
	child  *child

	published, gestures, delivered, reconnects, failed atomic.Int64
	first                                              atomic.Pointer[error] // of those that failed
}

// fail counts err, unless it only says that ctx has ended.
func (s *soaking) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	s.failed.Add(1)
	s.first.CompareAndSwap(nil, &err)
}

func (s *soaking) ask(question string) ([]string, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.child.ask("%s", question)
}

// token returns a new token of an actor.
func (s *soaking) token(actor string) (string, error) {
	fields, err := s.ask("token " + actor)
	if err != nil {
		return "", err
	}
	return strings.Join(fields, ""), nil
}

// client returns a client of an actor, whose connections are those of transport.
func (s *soaking) client(actor string, transport *http.Transport) (*client.Client, error) {
	return client.New(client.Options{
		URL:         "http://" + s.target.addr,
		TokenSource: func(context.Context) (string, error) { return s.token(actor) },
		HTTPClient:  &http.Client{Transport: transport},
		Backoff:     client.Backoff{Base: 100 * time.Millisecond, Max: time.Second},
		OnRetry: func(cause error, _ time.Duration) {
			s.reconnects.Add(1)
			if chain := new(client.ChainError); errors.As(cause, &chain) {
				s.fail(ctx, cause)
			}
		},
	})
}

// prepare has gestures delivered.
func (s *soaking) prepare() error {
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	c, err := s.client("u_1", transport)
	if err != nil {
		return err
	}
	_, err = c.SetFlag(ctx, soakRouting(), "gesture_fanout", twinrail.FlagRequest{Value: json.RawMessage("true")})
	return err
}

// run loads the server for so long.
func (s *soaking) run(duration, every time.Duration, n int) error {
	loading, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	l, err := s.newLoad(n)
	if err != nil {
		return err
	}
	var done sync.WaitGroup
	done.Go(func() { l.run(loading) })
	tick := time.NewTicker(every)
	defer tick.Stop()
	for loading.Err() == nil {
		select {
		case <-loading.Done():
		case <-tick.C:
			_, err = s.print("load")
			if err != nil {
				cancel()
			}
		}
	}
	done.Wait()
	l.close()
	return err
}

// figures is what the server takes.
type figures struct {
	resident, heap int // bytes
	goroutines     int
	descriptors    int // but those of the journal's files
	files          int // of the journal
}

func (s *soaking) figures() (f figures, err error) {
	fields, err := s.ask("state")
	if err != nil {
		return f, err
	}
	if err := numbers(fields, &f.resident, &f.heap, &f.goroutines); err != nil {
		return f, err
	}
	// A journal that grows has more files open.
	dir := filepath.Join("/proc", strconv.Itoa(s.child.cmd.Process.Pid), "fd")
	open, err := os.ReadDir(dir)
	if err != nil {
		return f, err
	}
	for _, fd := range open {
		if file, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(file, s.data) {
			f.files++
		} else if err == nil {
			f.descriptors++
		}
	}
	return f, nil
}

func (s *soaking) print(phase string) (figures, error) {
	f, err := s.figures()
	if err != nil {
		return f, err
	}
	fmt.Printf("%6.0fs %-6s resident %5.1f MiB, heap %5.1f MiB, %5d goroutines, %5d descriptors and %2d files of the journal; "+
		"%d events published, %d gestures, %d delivered, %d reconnects, %d errors\n",
		time.Since(s.began).Seconds(), phase, mib(f.resident), mib(f.heap), f.goroutines, f.descriptors, f.files,
		s.published.Load(), s.gestures.Load(), s.delivered.Load(), s.reconnects.Load(), s.failed.Load())
	return f, nil
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// rest is print after the server has collected its garbage.
func (s *soaking) rest(phase string) (figures, error) {
	if _, err := s.ask("memory"); err != nil {
		return figures{}, err
	}
	return s.print(phase)
}

// How far the server may stay from where it began, and how long it takes: no
// longer than what waits for a client that is gone.
const (
	goroutineMargin  = 8
	descriptorMargin = 4
	settleTime       = time.Minute
)

// settle waits until the server has given back what it took.
func (s *soaking) settle(before figures) error {
	var after figures
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Second) {
		var err error
		if after, err = s.figures(); err != nil {
			return err
		}
		if returned(before, after) || time.Now().After(deadline) {
			break
		}
	}
	after, err := s.rest("end")
	if err == nil && !returned(before, after) {
		err = fmt.Errorf("%d goroutines and %d descriptors are left, of %d and %d before",
			after.goroutines, after.descriptors, before.goroutines, before.descriptors)
	}
	return err
}

func returned(before, after figures) bool {
	return after.goroutines <= before.goroutines+goroutineMargin && after.descriptors <= before.descriptors+descriptorMargin
}
