package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"

	"github.com/twinrail/twinrail"
)

// streams measures what streams cost in memory that nobody uses any more, beside
// some that are in use: each had its event, and its subscriber or none.
func streams(args []string) error {
	var hot, most int
	parse("streams", args, func(fs *flag.FlagSet) {
		fs.IntVar(&hot, "hot", 1000, "streams with a subscriber")
		fs.IntVar(&most, "n", 1_000_000, "streams in all, in the end")
	})
	dir, err := os.MkdirTemp("", "twinrail-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := start("child-serve", "-data", dir)
	if err != nil {
		return err
	}
	defer c.stop()
	fields, err := c.line()
	if err != nil {
		return err
	}
	t := target{fields[0], fields[1]}
	if _, err := c.ask("spread commit hot 0 %d", hot); err != nil {
		return err
	}
	for i := range hot {
		nc, br, err := t.dialIn(query, twinrail.RailSSE, "hot"+strconv.Itoa(i), "")
		if err != nil {
			return err
		}
		defer nc.Close()
		if err := untilLive(br); err != nil {
			return err
		}
	}
	fmt.Printf("%d streams, each with a subscriber\n", hot)
	for n, written := min(10_000, most), 0; ; n = min(10*n, most) {
		if _, err := c.ask("spread commit cold %d %d", written, n-hot); err != nil {
			return err
		}
		written = n - hot
		state, err := c.ask("memory")
		if err != nil {
			return err
		}
		heap, err := c.ask("state")
		if err != nil {
			return err
		}
		var resident, used int
		if err := numbers([]string{state[0], heap[1]}, &resident, &used); err != nil {
			return err
		}
		fmt.Printf("%8d streams: %6.1f MiB resident, of which %5.1f MiB on the Go heap\n", n, float64(resident)/(1<<20), float64(used)/(1<<20))
		if n == most {
			return nil
		}
	}
}
