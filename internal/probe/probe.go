// Package probe tries the isolation of a server that runs, from outside: over
// HTTP, server-sent events and WebSockets, with raw clients of its own.
//
// The matrix has a cell for each of the eleven routing keys and each way in. In
// a cell there are parties that differ in that key alone. What is meant for one
// carries a canary, a random string that nobody can guess; the one must receive
// it, or the cell is [Broken] and proves nothing, and every byte that the other
// one ever received is searched for it, after a barrier: something that is meant
// for the other one, and is sent once the canary has come where it belongs. No
// cell waits for time to pass.
//
// All that the probe writes is under keys that begin with "probe_" and are
// random, so that nobody else's streams are touched.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
)

// Target is a server and the right to talk to it.
type Target struct {
	// URL is where the public interface is, such as https://rt.example.com.
	URL string
	// Client makes the requests, and its Transport, where that is an
	// *http.Transport, says how to dial WebSockets too. It must have no Timeout.
	// Default one of the run's own.
	Client *http.Client
	Tokens Tokens
}

// Options says what of the matrix is run, and how. The zero value of a field
// means its default.
type Options struct {
	// Keys and Ways are what is run of the matrix. Default all.
	Keys []twinrail.Key
	Ways []string
	// Parallel is how many cells are run at the same time. Default 8.
	Parallel int
	// Timeout bounds a cell. Default 15 s.
	Timeout time.Duration
	// ChangeFlags allows the probe to change flags of the tenants for as long as
	// a cell takes. Without it the cells that must are skipped.
	ChangeFlags bool
}

// runner is a run of the matrix.
type runner struct {
	base    *url.URL
	client  *http.Client
	tls     *tls.Config // of WebSockets
	tokens  Tokens
	options Options
}

// Run runs the matrix, and reports every cell of it. What goes wrong in a cell is
// in the report; an error says that there was nothing to run, or that ctx ended.
func Run(ctx context.Context, t Target, o Options) (*Report, error) {
	r, err := newRunner(t, o)
	if err != nil {
		return nil, err
	}
	if t.Client == nil {
		defer r.client.CloseIdleConnections()
	}
	report := &Report{Target: r.base.String(), Cells: r.cells()}
	r.runCells(ctx, report.Cells, func(w *way) bool { return !w.alone }, r.options.Parallel)
	r.runCells(ctx, report.Cells, func(w *way) bool { return w.alone }, 1)
	return report, ctx.Err()
}

func newRunner(t Target, o Options) (*runner, error) {
	base, err := url.Parse(t.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.User != nil {
		return nil, errors.New("the URL must be http:// or https:// and a host")
	}
	base.RawQuery, base.Fragment = "", ""
	if t.Tokens == nil {
		return nil, errors.New("the probe needs tokens")
	}
	for _, name := range o.Ways {
		if !slices.Contains(Ways(), name) {
			return nil, fmt.Errorf("no such way: %q", name)
		}
	}
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	client := t.Client
	if client == nil {
		client = newClient(o.Parallel)
	}
	return &runner{base: base, client: client, tls: tlsConfig(client), tokens: t.Tokens, options: o}, nil
}

// newClient returns a client of its own, for so many cells at the same time. It
// takes nothing from [http.DefaultTransport], which may be anything.
func newClient(parallel int) *http.Client {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // what is recorded is to be searched
		MaxIdleConnsPerHost: parallel,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// cells returns the cells that are asked for, none of them run.
func (r *runner) cells() (cells []Cell) {
	for i := range ways {
		if len(r.options.Ways) > 0 && !slices.Contains(r.options.Ways, ways[i].name) {
			continue
		}
		for _, key := range twinrail.Keys() {
			if len(r.options.Keys) == 0 || slices.Contains(r.options.Keys, key) {
				cells = append(cells, Cell{Way: ways[i].name, Key: key.String(), way: &ways[i], key: key})
			}
		}
	}
	return cells
}

// runCells runs the cells whose way is wanted, so many at a time.
func (r *runner) runCells(ctx context.Context, cells []Cell, wanted func(*way) bool, parallel int) {
	var running sync.WaitGroup
	places := make(chan struct{}, parallel)
	for i := range cells {
		if !wanted(cells[i].way) {
			continue
		}
		places <- struct{}{} // every cell ends with its timeout, or with ctx
		running.Go(func() {
			r.runCell(ctx, &cells[i])
			<-places
		})
	}
	running.Wait()
}

func (r *runner) runCell(ctx context.Context, c *Cell) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	w := newWorld(r, c.key)
	defer w.close()
	err := c.way.run(ctx, w)
	w.search()
	c.Outcome, c.Detail = w.verdict(err)
	c.Notes = w.notes
	c.Took = time.Since(began)
}
