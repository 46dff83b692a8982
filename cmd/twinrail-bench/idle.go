package main

import (
	"flag"
	"fmt"
	"net"
	"sync"

	"github.com/twinrail/twinrail"
)

// idle measures what a connection with a subscription costs at rest.
func idle(args []string) error {
	var n int
	parse("idle", args, func(fs *flag.FlagSet) {
		fs.IntVar(&n, "n", 10000, "connections of each rail")
	})
	const promised = 4096
	for _, rail := range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
		each, err := idleRail(rail, n)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d idle connections: %.0f bytes of resident memory each, %.2f of the promised %d\n",
			rail, n, each, each/promised, promised)
	}
	return nil
}

func idleRail(rail twinrail.Rail, n int) (float64, error) {
	c, t, err := serve()
	if err != nil {
		return 0, err
	}
	defer c.stop()
	warm, err := open(t, rail, 50)
	if err != nil {
		return 0, err
	}
	defer shut(warm)
	before, err := c.number("memory")
	if err != nil {
		return 0, err
	}
	conns, err := open(t, rail, n)
	if err != nil {
		return 0, err
	}
	defer shut(conns)
	after, err := c.number("memory")
	return (after - before) / float64(n), err
}

// open dials n connections, and waits until each is live.
func open(t target, rail twinrail.Rail, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range conns {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			nc, br, err := t.dial(rail, "")
			if err == nil {
				conns[i], err = nc, untilLive(br)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

func shut(conns []net.Conn) {
	for _, nc := range conns {
		_ = nc.Close()
	}
}
