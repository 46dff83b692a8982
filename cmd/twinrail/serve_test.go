package main

import (
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/server"
)

// serveOf returns what the command line of a server says.
func serveOf(t *testing.T, flags ...string) *serveCmd {
	t.Helper()
	parser, _, err := (&process{stdout: io.Discard, stderr: io.Discard}).parser()
	if err != nil {
		t.Fatal(err)
	}
	selected, err := parser.Parse(append([]string{"serve"}, flags...))
	if err != nil {
		t.Fatal(err)
	}
	c := selected.Selected().Target.Addr().Interface().(*serveCmd)
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServeOptions: each flag is the option that it says, and no other.
func TestServeOptions(t *testing.T) {
	c := serveOf(t, "--allowed-origin=https://a.example", "--heartbeat=1s", "--gather=2ms", "--write-timeout=3s", "--window=4",
		"--window-budget=5", "--max-event=6", "--max-frame=1027", "--max-body=1028", "--max-joins=9",
		"--drain-window=10s", "--return-rate=11", "--resume-window=12s", "--presence-grace=13s", "--max-members=14",
		"--max-connections=15", "--join-rate=16", "--publish-rate=17", "--publish-bytes=18", "--change-rate=19",
		"--max-bodies=20", "--frame-rate=21", "--max-lateness=22us", "--max-streams=23", "--max-retained=24")
	want := server.Options{
		AllowedOrigins: []string{"https://a.example"}, Heartbeat: time.Second, Gather: 2 * time.Millisecond,
		WriteTimeout: 3 * time.Second, Window: 4, WindowBudget: 5, MaxEvent: 6, MaxFrame: 1027, MaxBody: 1028, MaxJoins: 9,
		DrainWindow: 10 * time.Second, ReturnRate: 11, ResumeWindow: 12 * time.Second, PresenceGrace: 13 * time.Second,
		MaxMembers: 14, MaxConnections: 15, JoinRate: 16, PublishRate: 17, PublishBytes: 18, ChangeRate: 19,
		MaxBodies: 20, FrameRate: 21, MaxLateness: 22 * time.Microsecond,
	}
	if got := c.options(); !reflect.DeepEqual(got, want) {
		t.Errorf("the options are\n%+v, want\n%+v", got, want)
	}
	if got, want := c.quota(), (journal.Quota{Streams: 23, Bytes: 24}); got != want {
		t.Errorf("the quota is %+v, want %+v", got, want)
	}
}

// TestServeWithoutLimits: what is no limit to who starts the server is none to the
// server, of which 0 would be its own default.
func TestServeWithoutLimits(t *testing.T) {
	for name, limit := range map[string]func(server.Options) any{
		"gather":          func(o server.Options) any { return o.Gather },
		"max-lateness":    func(o server.Options) any { return o.MaxLateness },
		"window":          func(o server.Options) any { return o.Window },
		"window-budget":   func(o server.Options) any { return o.WindowBudget },
		"max-connections": func(o server.Options) any { return o.MaxConnections },
		"join-rate":       func(o server.Options) any { return o.JoinRate },
		"publish-rate":    func(o server.Options) any { return o.PublishRate },
		"publish-bytes":   func(o server.Options) any { return o.PublishBytes },
		"change-rate":     func(o server.Options) any { return o.ChangeRate },
		"max-bodies":      func(o server.Options) any { return o.MaxBodies },
		"frame-rate":      func(o server.Options) any { return o.FrameRate },
	} {
		zero := "0"
		if _, isTime := limit(server.Options{}).(time.Duration); isTime {
			zero = "0s"
		}
		if got := limit(serveOf(t, "--"+name, zero).options()); reflect.ValueOf(got).Int() >= 0 {
			t.Errorf("--%s %s is %v to the server", name, zero, got)
		}
		if got := limit(serveOf(t).options()); reflect.ValueOf(got).Int() <= 0 {
			t.Errorf("without --%s it is %v", name, got)
		}
	}
}
