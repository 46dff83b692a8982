package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/server"
)

// serveCmd is the configuration of the server.
type serveCmd struct {
	Listen      string `help:"Where clients connect. Port 0 takes any free one, which is logged." default:"127.0.0.1:8080"`
	AdminListen string `help:"Where operators find /healthz, /readyz, /metrics and pprof. It asks for no credential." default:"127.0.0.1:8081"`
	TLSCert     string `name:"tls-cert" help:"PEM file with the certificate chain to serve with." placeholder:"FILE"`
	TLSKey      string `name:"tls-key" help:"PEM file with its key." placeholder:"FILE"`

	Data           string        `help:"Directory for the journal and the development key. It is made where there is none." default:"${defaultData}"`
	Journal        string        `help:"Where events are kept: disk, or memory, which a restart loses." default:"disk"`
	RetentionCount int64         `help:"How many events of each stream are kept; 0 for all." default:"1000000"`
	RetentionAge   time.Duration `help:"How long events are kept; 0 for ever." default:"0s"`
	RetentionBytes byteSize      `help:"How many bytes of each stream are kept; 0 for all." default:"1GiB"`
	DedupeWindow   time.Duration `help:"How long an event's id is known; 0 for as long as the event is kept." default:"0s"`

	// The other commands have an --env too, the one that they act in: a value
	// that is exported for them, or in a file for all of them, must not leave the
	// server with that one alone.
	Env           []string `help:"The environments that exist; may be repeated. Its key in a file is envs." aliases:"envs" env:"TWINRAIL_ENVS" default:"dev,staging,prod"`
	AllowedOrigin []string `help:"An origin, such as https://app.example.com, whose pages may use this server; may be repeated." placeholder:"ORIGIN"`
	// Named so that nobody takes it for the way to switch cookies on.
	InsecureCookies bool   `help:"For development over plain HTTP: let the session cookie go over connections without TLS."`
	Tenant0         string `name:"tenant-0" help:"The platform's own tenant, which sets flags for all the others." default:"t_0"`

	issuer `embed:"" prefix:"auth-"`

	TicketTTL     time.Duration `name:"ticket-ttl" help:"How long a ticket is good for." default:"1m"`
	MaxTokenAge   time.Duration `help:"How long after its iat a token is accepted at most, and how long a revocation is kept." default:"2160h"`
	ResumeWindow  time.Duration `help:"How long a WebSocket's session waits for its client to come back." default:"2m"`
	PresenceGrace time.Duration `help:"How long who lost its connection is still present." default:"10s"`

	Heartbeat    time.Duration `help:"How often a quiet connection is written to, and a silent WebSocket pinged." default:"15s"`
	Gather       time.Duration `help:"How long what comes is gathered for a connection that was just written to; 0 for no time." default:"5ms"`
	WriteTimeout time.Duration `help:"How long a write may take before its connection is given up." default:"30s"`
	Window       byteSize      `help:"How much of each stream in use is held encoded in memory; 0 for nothing." default:"1MiB"`
	WindowBudget byteSize      `help:"How much of all streams together is so held; 0 for no bound." default:"256MiB"`
	MaxEvent     byteSize      `help:"The largest data of an event." default:"64KiB"`
	MaxFrame     byteSize      `help:"The largest WebSocket message." default:"1MiB"`
	MaxBody      byteSize      `help:"The largest request body." default:"8MiB"`
	MaxJoins     int           `help:"The most subscriptions of a WebSocket." default:"128"`
	MaxMembers   int           `help:"The most members present at one address." default:"4096"`

	MaxConnections int           `help:"The most connections of a tenant in one environment; 0 for any number." default:"50000"`
	MaxStreams     int64         `help:"The most streams that it keeps; 0 for any number." default:"1000000"`
	MaxRetained    byteSize      `help:"How many bytes of events it keeps in all its streams; 0 for any number." default:"100GiB"`
	JoinRate       int           `help:"How many connections, joins and tickets it opens in a second at most; 0 for any number." default:"10000"`
	PublishRate    int           `help:"How many events it publishes in a second at most, and apart from them gestures; 0 for any number." default:"50000"`
	PublishBytes   byteSize      `help:"How many bytes of events it publishes in a second at most, and apart from them of gestures; 0 for any number." default:"64MiB"`
	ChangeRate     int           `help:"How many cookie sessions its members open and end in a second at most, and apart from them revocations and changes of flags; 0 for any number." default:"200"`
	MaxBodies      byteSize      `help:"How many bytes of request bodies and WebSocket messages it has at most while they are read; 0 for any number." default:"64MiB"`
	FrameRate      int           `help:"How many frames a WebSocket sends in a second at most; 0 for any number." default:"1000"`
	MaxLateness    time.Duration `help:"How late input may be noticed before tenants that always have requests in line are slowed beside others; 0 slows nobody." default:"200us"`

	DrainWindow time.Duration `help:"The time over which a server that goes away spreads the return of its clients." default:"10s"`
	ReturnRate  int           `help:"How many clients a second it tells to return at most; with more, it takes longer than --drain-window." default:"1000"`

	LogFormat string `help:"How logs are written to standard error: ${enum}." enum:"text,json" default:"text"`
	LogLevel  string `help:"What is logged at least: ${enum}." enum:"debug,info,warn,error" default:"info"`
}

// Help implements kong's HelpProvider.
func (serveCmd) Help() string {
	return `Without an issuer (--auth-hmac-secret-file, --auth-public-key-file, --auth-jwks-url, or a secret in ` + secretEnv + `) it accepts only tokens that twinrail token makes from the key in the data directory: for development.

SIGINT and SIGTERM drain: clients are told when to come back, accepted publishes are finished, and then it ends.`
}

// check returns the first value that cannot be meant, as a usage error.
func (c *serveCmd) check() error {
	for _, err := range []error{
		checkListen("--listen", c.Listen), checkListen("--admin-listen", c.AdminListen),
		checkJournal(c.Journal), c.checkEnvs(), c.checkTenant0(), c.checkOrigins(), c.checkLimits(), c.checkTLS(), c.issuer.check(),
	} {
		if err != nil {
			return usageError(err)
		}
	}
	return nil
}

func checkListen(flag, address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("%s: must be host:port, such as 127.0.0.1:8080: %w", flag, err)
	}
	return nil
}

func checkJournal(name string) error {
	switch name {
	case "disk", "memory":
		return nil
	case "nats":
		return errors.New("--journal: nats comes with a later release; use disk or memory")
	}
	return fmt.Errorf("--journal: must be disk or memory, not %q", name)
}

func (c *serveCmd) checkEnvs() error {
	if len(c.Env) == 0 {
		return errors.New("--env: there must be at least one")
	}
	for _, env := range c.Env {
		if !twinrail.ValidKeyValue(twinrail.KeyEnv, env) {
			return fmt.Errorf("--env: %q must be 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit", env)
		}
	}
	return nil
}

func (c *serveCmd) checkTenant0() error {
	if !twinrail.ValidKeyValue(twinrail.KeyTenant, c.Tenant0) {
		return fmt.Errorf("--tenant-0: %q must be t_ and then 1 to 62 lower-case letters, digits, _ or -", c.Tenant0)
	}
	return nil
}

func (c *serveCmd) checkOrigins() error {
	for _, origin := range c.AllowedOrigin {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Scheme+"://"+u.Host != origin {
			return fmt.Errorf("--allowed-origin: %q must be a scheme and a host and nothing else, such as https://app.example.com", origin)
		}
	}
	return nil
}

func (c *serveCmd) checkTLS() error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key: one needs the other")
	}
	return nil
}

// maxInMemory bounds the sizes of what is held in memory whole, and maxBudget
// those of all such together.
const (
	maxInMemory = 1 << 30
	maxBudget   = 1 << 40
)

func (c *serveCmd) checkLimits() error {
	for _, d := range []struct {
		flag        string
		value       time.Duration
		least, most time.Duration
	}{
		{"--heartbeat", c.Heartbeat, 10 * time.Millisecond, 10 * time.Minute},
		{"--gather", c.Gather, 0, time.Second},
		{"--write-timeout", c.WriteTimeout, 100 * time.Millisecond, time.Hour},
		{"--max-lateness", c.MaxLateness, 0, time.Second},
		{"--drain-window", c.DrainWindow, time.Millisecond, time.Hour},
		{"--ticket-ttl", c.TicketTTL, time.Second, 10 * time.Minute},
		{"--max-token-age", c.MaxTokenAge, time.Minute, 10 * 365 * 24 * time.Hour},
		{"--resume-window", c.ResumeWindow, time.Second, 24 * time.Hour},
		{"--presence-grace", c.PresenceGrace, 10 * time.Millisecond, time.Hour},
		{"--retention-age", c.RetentionAge, 0, 100 * 365 * 24 * time.Hour},
		{"--dedupe-window", c.DedupeWindow, 0, 100 * 365 * 24 * time.Hour},
	} {
		if d.value < d.least || d.value > d.most {
			return fmt.Errorf("%s: must be %v to %v, not %v", d.flag, d.least, d.most, d.value)
		}
	}
	for _, n := range []struct {
		flag        string
		value       int64
		least, most int64
	}{
		{"--window", int64(c.Window), 0, maxInMemory},
		{"--window-budget", int64(c.WindowBudget), 0, maxBudget},
		{"--max-event", int64(c.MaxEvent), 1, maxInMemory},
		{"--max-frame", int64(c.MaxFrame), 1 << 10, maxInMemory},
		{"--max-body", int64(c.MaxBody), 1 << 10, maxInMemory},
		{"--max-joins", int64(c.MaxJoins), 1, 1 << 20},
		{"--max-members", int64(c.MaxMembers), 1, 1 << 20},
		{"--return-rate", int64(c.ReturnRate), 1, 1 << 20},
		{"--max-connections", int64(c.MaxConnections), 0, 1 << 30},
		{"--max-streams", c.MaxStreams, 0, 1 << 62},
		{"--max-retained", int64(c.MaxRetained), 0, 1 << 62},
		{"--join-rate", int64(c.JoinRate), 0, 1 << 20},
		{"--publish-rate", int64(c.PublishRate), 0, 1 << 20},
		{"--publish-bytes", int64(c.PublishBytes), 0, maxInMemory},
		{"--change-rate", int64(c.ChangeRate), 0, 1 << 20},
		{"--max-bodies", int64(c.MaxBodies), 0, maxBudget},
		{"--frame-rate", int64(c.FrameRate), 0, 1 << 20},
		{"--retention-count", c.RetentionCount, 0, 1 << 62},
	} {
		if n.value < n.least || n.value > n.most {
			return fmt.Errorf("%s: must be %d to %d, not %d", n.flag, n.least, n.most, n.value)
		}
	}
	return nil
}

// retention is as the journals take it.
func (c *serveCmd) retention() journal.Retention {
	return journal.Retention{Count: c.RetentionCount, Age: c.RetentionAge, Bytes: int64(c.RetentionBytes)}
}

// quota is as the journals take it.
func (c *serveCmd) quota() journal.Quota {
	return journal.Quota{Streams: c.MaxStreams, Bytes: int64(c.MaxRetained)}
}

// options is what the server takes of the configuration; 0 is its default where
// here it is nothing.
func (c *serveCmd) options() server.Options {
	o := server.Options{
		AllowedOrigins: c.AllowedOrigin,
		Heartbeat:      c.Heartbeat,
		Gather:         c.Gather,
		WriteTimeout:   c.WriteTimeout,
		Window:         int(c.Window),
		WindowBudget:   int(c.WindowBudget),
		MaxEvent:       int(c.MaxEvent),
		MaxFrame:       int(c.MaxFrame),
		MaxBody:        int(c.MaxBody),
		MaxJoins:       c.MaxJoins,
		DrainWindow:    c.DrainWindow,
		ReturnRate:     c.ReturnRate,
		ResumeWindow:   c.ResumeWindow,
		PresenceGrace:  c.PresenceGrace,
		MaxMembers:     c.MaxMembers,
		MaxConnections: c.MaxConnections,
		JoinRate:       c.JoinRate,
		PublishRate:    c.PublishRate,
		PublishBytes:   int(c.PublishBytes),
		ChangeRate:     c.ChangeRate,
		MaxBodies:      int(c.MaxBodies),
		FrameRate:      c.FrameRate,
		MaxLateness:    c.MaxLateness,
	}
	for _, d := range []*time.Duration{&o.Gather, &o.MaxLateness} {
		if *d == 0 {
			*d = -1
		}
	}
	for _, n := range []*int{&o.Window, &o.WindowBudget, &o.MaxConnections, &o.JoinRate, &o.PublishRate, &o.PublishBytes, &o.ChangeRate, &o.MaxBodies, &o.FrameRate} {
		if *n == 0 {
			*n = -1
		}
	}
	return o
}

func (c *serveCmd) logger(to io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // one of the four
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}
