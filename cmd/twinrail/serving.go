package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/server"
	"github.com/twinrail/twinrail/internal/table"
)

// journalDir is the journal's own directory within the data directory.
const journalDir = "journal"

// Run implements the command: it builds the graph
//
//	journal ─┐
//	verifier ┴─ server ─┬─ public listener
//	                    └─ admin listener
//
// from the left, runs the right as one group, and takes it down from the right.
func (c *serveCmd) Run(p *process) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	log := c.logger(p.stderr)
	certificate, err := c.certificate()
	if err != nil {
		return usageError(err)
	}
	verifier, err := c.verifier(log)
	if err != nil {
		return err
	}
	defer verifier.Close()
	events, tables, err := c.openJournal(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	gate, err := c.gate(verifier, tables, log)
	if err != nil {
		return err
	}
	flags, err := feature.Open(tables("flag"), feature.Options{Tenant0: c.Tenant0, Logger: log})
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	options := c.options()
	options.Flags = flags
	options.Journal, options.Gate, options.Sessions, options.Logger = events, gate, tables("session"), log
	core, err := server.New(options)
	if err != nil {
		return err
	}
	defer core.Close()
	s := &serving{c: c, log: log, core: core}
	if err := s.listen(certificate); err != nil {
		return err
	}
	if !c.configured() && c.LogFormat == "text" {
		printHints(p, s.url(), c)
	}
	return s.run(p)
}

func (c *serveCmd) certificate() (*tls.Certificate, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	return &certificate, nil
}

// openJournal opens the journal, and what opens the tables beside it.
func (c *serveCmd) openJournal(log *slog.Logger) (journal.Journal, func(name string) table.Table, error) {
	if c.Journal == "memory" {
		log.Warn("events, revocations and sessions are kept in memory: a restart loses them")
		events := journal.NewMemory(journal.MemoryOptions{Retention: c.retention(), DedupeWindow: c.DedupeWindow, Quota: c.quota()})
		return events, func(string) table.Table { return new(table.Memory) }, nil
	}
	dir := filepath.Join(c.Data, journalDir)
	opened, err := disk.Open(dir, disk.Options{Retention: c.retention(), DedupeWindow: c.DedupeWindow, Quota: c.quota(), Logger: log})
	if err != nil {
		return nil, nil, fmt.Errorf("--data: %w", err)
	}
	return opened, opened.Table, nil
}

// gate returns the way in. Its key is kept where what it signs is kept.
func (c *serveCmd) gate(verifier *auth.Verifier, tables func(name string) table.Table, log *slog.Logger) (*auth.Gate, error) {
	o := auth.GateOptions{
		Verifier: verifier, Revocations: tables("revocation"), Cookies: tables("cookie"),
		AllowedOrigins: c.AllowedOrigin, InsecureCookies: c.InsecureCookies,
		TicketTTL: c.TicketTTL, MaxTokenAge: c.MaxTokenAge, Logger: log,
	}
	if c.Journal != "memory" {
		key, err := auth.LoadOrCreateKey(c.Data, auth.SessionKeyFile)
		if err != nil {
			return nil, err
		}
		o.Key = key
	}
	return auth.NewGate(o)
}

// serving is a server that listens.
type serving struct {
	c             *serveCmd
	log           *slog.Logger
	core          *server.Server
	public, admin *http.Server
	// The listeners belong to the http.Servers once these serve.
	publicListener, adminListener net.Listener
}

// A request that is not a stream has so long to come in whole, and to be
// answered; a token of auth.MaxToken may be in its headers twice.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeader      = 2*auth.MaxToken + 16<<10
	drainMargin    = 20 * time.Second
)

func (s *serving) listen(certificate *tls.Certificate) (err error) {
	if s.publicListener, err = net.Listen("tcp", s.c.Listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if s.adminListener, err = net.Listen("tcp", s.c.AdminListen); err != nil {
		return errors.Join(fmt.Errorf("--admin-listen: %w", err), s.publicListener.Close())
	}
	s.public, s.admin = s.httpServer(s.core.Handler()), s.httpServer(s.core.AdminHandler())
	// The rails have deadlines of their own. On the admin listener a profile
	// takes as long as it is asked to.
	s.public.WriteTimeout = requestTimeout
	s.core.SetHTTP2(s.public)
	if certificate != nil {
		s.public.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
	} else if !loopback(s.publicListener) {
		s.log.Warn("clients connect without TLS from other machines: whoever can see the network can see and use their tokens", "listen", s.c.Listen)
	}
	if !loopback(s.adminListener) {
		s.log.Warn("the admin listener, which asks for no credential, can be reached from other machines", "admin_listen", s.c.AdminListen)
	}
	s.log.Info("listening", "url", s.url(), "admin_url", "http://"+reachable(s.adminListener), "version", versionLine())
	return nil
}

func (s *serving) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// url returns the server's URL as somebody on this machine reaches it.
func (s *serving) url() string {
	if s.public.TLSConfig != nil {
		return "https://" + reachable(s.publicListener)
	}
	return "http://" + reachable(s.publicListener)
}

func loopback(l net.Listener) bool {
	address, ok := l.Addr().(*net.TCPAddr)
	return ok && address.IP.IsLoopback()
}

// reachable returns the address of l, with loopback for any address.
func reachable(l net.Listener) string {
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok || !address.IP.IsUnspecified() {
		return l.Addr().String()
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: address.Port}).String()
}

// run serves until a signal, and then drains; or until a listener fails.
func (s *serving) run(p *process) error {
	group, ctx := errgroup.WithContext(p.ctx)
	group.Go(func() error {
		if s.public.TLSConfig != nil {
			return served(s.public.ServeTLS(server.TLSListener(s.publicListener), "", ""))
		}
		return served(s.public.Serve(s.publicListener))
	})
	group.Go(func() error { return served(s.admin.Serve(s.adminListener)) })
	group.Go(func() error {
		<-ctx.Done()
		p.stop() // the next signal ends it at once
		return s.drain()
	})
	err := group.Wait()
	s.log.Info("stopped")
	return err
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// drain sends the clients away, finishes what was accepted, and closes the
// listeners. The admin listener is last: it says meanwhile that the server is not
// ready.
func (s *serving) drain() error {
	s.log.Info("draining")
	ctx, cancel := context.WithTimeout(context.Background(), s.c.DrainWindow+drainMargin)
	defer cancel()
	if err := s.core.Drain(ctx); err != nil {
		s.log.Warn("some connections were cut off", "error", err)
	}
	return errors.Join(shutDown(ctx, s.public), shutDown(ctx, s.admin))
}

// shutDown lets the requests finish that are under way; when ctx ends first, what
// is left is cut off.
func shutDown(ctx context.Context, server *http.Server) error {
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}
