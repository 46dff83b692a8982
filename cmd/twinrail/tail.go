package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// tailCmd follows one stream.
type tailCmd struct {
	remote     `embed:""`
	Workspace  string   `help:"The workspace." required:"" placeholder:"W"`
	Project    string   `help:"The project." required:"" placeholder:"P"`
	App        string   `help:"The app." required:"" placeholder:"A"`
	Canvas     string   `help:"The canvas to follow, on the SSE rail." required:"" xor:"stream" placeholder:"C"`
	Thread     string   `help:"The thread to follow, on the WS rail." required:"" xor:"stream" placeholder:"T"`
	Surface    string   `help:"Hold this surface: receive also what is only for it." placeholder:"S"`
	Projection string   `help:"Hold this projection." placeholder:"P"`
	Panel      string   `help:"Hold this panel." placeholder:"P"`
	Channels   []string `help:"The channels to follow. Default commit,artifact or chat,tool, as far as they are granted. With presence among those of a thread, who comes and goes is printed between its events." xor:"what" placeholder:"CHANNEL"`
	Presence   bool     `help:"Follow who is present, of the canvas or the thread, in place of its events." xor:"what"`
	State      string   `help:"Be present there too, with this state: any JSON. Of a canvas only with --presence." placeholder:"JSON"`
	From       string   `help:"Where to start: head, earliest, or after a cursor." default:"head"`
	JSON       bool     `name:"json" help:"Print each event's JSON as it was received, one a line."`

	Silence time.Duration `help:"How long the SSE rail may be silent before tail connects anew: more than two of the server's heartbeats. The WS rail tells its heartbeat." default:"40s"`
}

// Help implements kong's HelpProvider.
func (tailCmd) Help() string {
	return `Prints events on standard output, and what happens to the connection on standard error. After a cut it resumes where it was, until it is interrupted or refused.

A reset, which says that events between two points cannot be had any more, is printed between the events before and after it. With --json it is a line {"reset":{"reason":…,"requested":…,"oldest":…,"head":…}}: no event has a member of that name. Line breaks within an event's data are then printed as spaces, so that every line is one event.

Presence is printed as who is here, after each connection, and then who came, changed and left, one a line. With --json it is a line {"presence":{"members":[…]}} with who is here, in the place of what was known before (where they are many, with the first; the others join in the lines after it), and then a line {"presence":{"leave":[…],"join":[…],"update":[…]}} for each change, with those of the three that are not empty.`
}

// Run implements the command.
func (c *tailCmd) Run(p *process) error {
	if err := c.check(); err != nil {
		return err
	}
	out := printer{out: outlet{p.ctx, p.stdout}, notes: outlet{p.ctx, p.stderr}, json: c.JSON}
	remote, routing, err := c.dial(client.Options{Silence: c.Silence, OnRetry: func(cause error, wait time.Duration) {
		reason := strings.TrimPrefix(cause.Error(), "client: ")
		fmt.Fprintf(out.notes, "twinrail: %s; coming back in %v\n", reason, wait.Round(time.Millisecond))
	}})
	if err != nil {
		return err
	}
	defer remote.Close()
	for item, err := range c.follow(p.ctx, remote, c.routing(routing)) {
		if err == nil {
			err = out.print(item)
		}
		if err != nil && p.ctx.Err() != nil {
			return nil // interrupted, which is how it ends
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *tailCmd) check() error {
	switch {
	case c.Silence <= 0:
		return usageError(errors.New("--silence: must be more than 0s"))
	case c.State == "":
		return nil
	case !json.Valid([]byte(c.State)):
		return usageError(errors.New("--state: is not JSON"), `a string has quotes of its own: --state '"busy"'`)
	case c.Canvas != "" && !c.Presence:
		return usageError(errors.New("--state: a canvas's events are followed without being present"), "add --presence to be there, and to follow who else is")
	}
	return nil
}

func (c *tailCmd) routing(r twinrail.Routing) twinrail.Routing {
	r.WorkspaceID, r.ProjectID, r.AppID = c.Workspace, c.Project, c.App
	r.CanvasID, r.ThreadID = c.Canvas, c.Thread
	r.SurfaceID, r.ProjectionID, r.PanelID = c.Surface, c.Projection, c.Panel
	return r
}

func (c *tailCmd) follow(ctx context.Context, from *client.Client, routing twinrail.Routing) iter.Seq2[client.Item, error] {
	var state json.RawMessage
	if c.State != "" {
		state = json.RawMessage(c.State)
	}
	if c.Presence {
		return from.FollowPresence(ctx, routing, state)
	}
	options := client.FollowOptions{From: c.From, Presence: state}
	if c.From == "head" {
		options.From = ""
	}
	for _, name := range c.Channels {
		options.Channels = append(options.Channels, twinrail.Channel(name))
	}
	if c.Canvas != "" {
		return from.FollowCanvas(ctx, routing, options)
	}
	return from.FollowThread(ctx, routing, options)
}

// printer writes items for a human, or as lines of JSON.
type printer struct {
	out, notes io.Writer
	json       bool
}

func (p *printer) print(item client.Item) error {
	switch item.Kind {
	case client.KindOpen:
		fmt.Fprintf(p.notes, "twinrail: connected at %s\n", item.Open.Cursor)
	case client.KindLive:
		fmt.Fprintf(p.notes, "twinrail: up to date at %s\n", item.Cursor)
	case client.KindReset:
		return p.reset(item.Reset)
	case client.KindPresence:
		return p.presence(item.Presence)
	case client.KindEvent:
		if p.json {
			_, err := fmt.Fprintf(p.out, "%s\n", oneLine(item.Raw))
			return err
		}
		_, err := fmt.Fprintln(p.out, eventLine(item.Event))
		return err
	}
	return nil
}

func (p *printer) reset(r *twinrail.Reset) error {
	if !p.json {
		_, err := fmt.Fprintf(p.out, "-- reset: %s: events after %s cannot be had any more; going on from %s\n", r.Reason, printable(r.Requested), r.Head)
		return err
	}
	line, err := json.Marshal(map[string]*twinrail.Reset{"reset": r})
	if err == nil {
		_, err = fmt.Fprintf(p.out, "%s\n", line)
	}
	return err
}

func (p *printer) presence(is *client.Presence) error {
	if p.json {
		line, err := json.Marshal(map[string]*client.Presence{"presence": is})
		if err == nil {
			_, err = fmt.Fprintf(p.out, "%s\n", line)
		}
		return err
	}
	var lines strings.Builder
	if is.Members != nil {
		fmt.Fprintf(&lines, "-- presence: %d here\n", len(is.Members))
	}
	for _, part := range []struct {
		verb    string
		members []twinrail.PresenceMember
	}{{"here", is.Members}, {"left", is.Leave}, {"came", is.Join}, {"changed", is.Update}} {
		for i := range part.members {
			fmt.Fprintf(&lines, "%s %s\n", part.verb, memberLine(&part.members[i]))
		}
	}
	_, err := io.WriteString(p.out, lines.String())
	return err
}

// memberLine returns who a member is, and what it says of itself, in one line:
//
//	u_42 s_53uw… panel_id=p1 {"any":"JSON"}
func memberLine(m *twinrail.PresenceMember) string {
	words := []string{printable(m.ActorID), printable(m.SessionID)}
	for _, key := range twinrail.Keys() {
		if m.Routing != nil && m.Routing.Get(key) != "" {
			words = append(words, printable(fmt.Sprintf("%s=%s", key, m.Routing.Get(key))))
		}
	}
	if m.State != nil {
		words = append(words, printable(string(oneLine(m.State))))
	}
	return strings.Join(words, " ")
}

// eventLine returns an event in one line:
//
//	10:00:00.123 #42 commit canvas_commit u_42 {"any":"JSON"}
func eventLine(e *twinrail.Event) string {
	place := "-" // ephemeral
	if e.Seq != 0 {
		place = fmt.Sprintf("#%d", e.Seq)
	}
	return strings.Join([]string{
		e.Time.Format("15:04:05.000"), place, printable(string(e.Channel)), printable(e.Type), printable(e.Routing.ActorID),
		printable(string(oneLine(e.Data))),
	}, " ")
}

// oneLine returns JSON without line breaks, which in JSON can only be space
// between its parts.
func oneLine(data []byte) []byte {
	if !bytes.ContainsAny(data, "\r\n") {
		return data
	}
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, data)
}

// printable escapes what a terminal would take as a command: events hold what
// others wrote.
func printable(s string) string {
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool { return unicode.Is(unicode.C, r) && r <= 0xffff }
