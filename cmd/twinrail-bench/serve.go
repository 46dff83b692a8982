package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/server"
)

// query is the context of every request of the benchmarks.
const query = "tenant_id=t_bench&env=dev&workspace_id=w1&project_id=p1&app_id=a1"

// otherTenant is one that has nothing to do with the context of the others.
const otherTenant = "t_other"

// childServe is a Twinrail server. Its first line is its address and a token.
func childServe(args []string) error {
	var gather time.Duration
	var data string
	var unlimited bool
	parse("child-serve", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&unlimited, "unlimited", false, "")
		fs.DurationVar(&gather, "gather", 0, "")
		fs.StringVar(&data, "data", "", "")
	})
	j, err := openJournal(data)
	if err != nil {
		return err
	}
	defer j.Close()
	key := make([]byte, auth.MinSecret)
	rand.Read(key)
	v, err := auth.NewVerifier(auth.VerifierOptions{Keys: []auth.Key{{Material: key}}})
	if err != nil {
		return err
	}
	mint := func(actor, tenant string) (string, error) {
		return auth.Mint(key, twinrail.Identity{
			ActorID: actor, ActorType: twinrail.Human, TenantID: tenant, Env: "dev", Role: twinrail.Owner,
			Grants: []twinrail.Grant{auth.FullGrant()},
		}, time.Hour)
	}
	token, err := mint("u_1", "t_bench")
	if err != nil {
		return err
	}
	g, err := auth.NewGate(auth.GateOptions{Verifier: v})
	if err != nil {
		return err
	}
	o := server.Options{Journal: j, Gate: g, Gather: gather}
	if unlimited {
		o.MaxConnections, o.JoinRate, o.PublishRate, o.PublishBytes = -1, -1, -1, -1
	}
	s, err := server.New(o)
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(listener, s.Handler())
	fmt.Println(listener.Addr(), token)
	p := &publisher{journal: j, verifier: v, token: token}
	return serveLines(func(fields []string) (string, error) {
		switch fields[0] {
		case "fill":
			return p.fill(fields[1:])
		case "spread":
			return p.spread(fields[1:])
		case "pace":
			return p.pace(fields[1:])
		case "token": // of another actor
			return mint(fields[1], "t_bench")
		case "other": // of another tenant
			return mint("u_1", otherTenant)
		}
		return own(fields)
	})
}

func openJournal(data string) (journal.Journal, error) {
	if data == "" {
		return journal.NewMemory(journal.MemoryOptions{}), nil
	}
	return disk.Open(data, disk.Options{})
}

// publisher fills streams from within, which is quicker than over HTTP.
type publisher struct {
	journal  journal.Journal
	verifier *auth.Verifier
	token    string
}

// fill appends events to a stream: channel, canvas or thread, how many, bytes of
// data each. It answers with the cursor before the last one.
func (p *publisher) fill(args []string) (string, error) {
	channel, id := twinrail.Channel(args[0]), args[1]
	var count, size int
	if err := numbers(args[2:], &count, &size); err != nil {
		return "", err
	}
	w, err := p.writer(channel, id)
	if err != nil {
		return "", err
	}
	data := benchData(size)
	var before, last twinrail.Cursor
	for done := 0; done < count; {
		batch := make([]journal.Record, min(1000, count-done))
		for i := range batch {
			batch[i] = journal.NewRecord(w, twinrail.Event{ID: uuid.NewString(), Type: "bench", Time: time.Now(), Data: data})
		}
		stored, err := p.journal.Append(ctx, batch, journal.Expect{})
		if err != nil {
			return "", err
		}
		for _, r := range stored {
			before, last = last, r.Cursor
		}
		done += len(batch)
	}
	return before.String(), nil
}

// spread appends one event to each of some streams: channel, what their names begin
// with, the number of the first one and that after the last.
func (p *publisher) spread(args []string) (string, error) {
	channel, prefix := twinrail.Channel(args[0]), args[1]
	var from, to int
	if err := numbers(args[2:], &from, &to); err != nil {
		return "", err
	}
	var g errgroup.Group
	g.SetLimit(256)
	for i := from; i < to; i++ {
		g.Go(func() error {
			w, err := p.writer(channel, prefix+strconv.Itoa(i))
			if err != nil {
				return err
			}
			e := twinrail.Event{ID: uuid.NewString(), Type: "bench", Time: time.Now(), Data: benchData(200)}
			_, err = p.journal.Append(ctx, []journal.Record{journal.NewRecord(w, e)}, journal.Expect{})
			return err
		})
	}
	return "ok", g.Wait()
}

// pace appends one event after the other: channel, canvas or thread, how many,
// bytes of data each, how many a second.
func (p *publisher) pace(args []string) (string, error) {
	channel, id := twinrail.Channel(args[0]), args[1]
	var count, size, rate int
	if err := numbers(args[2:], &count, &size, &rate); err != nil {
		return "", err
	}
	w, err := p.writer(channel, id)
	if err != nil {
		return "", err
	}
	started := time.Now()
	for i := range count {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		e := twinrail.Event{ID: uuid.NewString(), Type: "bench", Time: time.Now(), Data: benchData(size)}
		if _, err := p.journal.Append(ctx, []journal.Record{journal.NewRecord(w, e)}, journal.Expect{}); err != nil {
			return "", err
		}
	}
	return "ok", nil
}

func (p *publisher) writer(channel twinrail.Channel, id string) (auth.Writer, error) {
	principal, err := p.verifier.Verify(ctx, p.token)
	if err != nil {
		return auth.Writer{}, err
	}
	in := twinrail.Routing{TenantID: "t_bench", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "a1"}
	if channel.In(twinrail.CanvasStream) {
		in.CanvasID = id
	} else {
		in.ThreadID = id
	}
	ac, err := principal.Enter(in, "", "")
	if err != nil {
		return auth.Writer{}, err
	}
	return ac.Writer(twinrail.Routing{}, channel)
}
