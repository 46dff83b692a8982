// Command twinrail-bench measures what the documentation says of Twinrail's cost,
// each figure as a ratio against something that ran at the same time on the same
// machine.
//
//	go run ./cmd/twinrail-bench idle     resident memory of 10,000 idle connections of each rail
//	go run ./cmd/twinrail-bench fanout   deliveries per CPU second, against a bare program that writes the same bytes
//	go run ./cmd/twinrail-bench latency  time to deliver at 50 messages/s, against the same bare program
//	go run ./cmd/twinrail-bench backlog  time to the first byte, with a backlog of 1,000,000 events and of 1,000
//	go run ./cmd/twinrail-bench slow     memory of subscribers that stopped reading, with a long backlog and a short one
//	go run ./cmd/twinrail-bench gestures latency of a canvas's commits, alone and while 200 actors gesture on it
//	go run ./cmd/twinrail-bench streams  memory of 1,000,000 streams, of which 1,000 are in use
//	go run ./cmd/twinrail-bench soak     memory, goroutines and descriptors under a mixed load, and after it
//	go run ./cmd/twinrail-bench fair     what one tenant is delivered, and replayed, while another floods the node
//
// Server, bare program and readers are processes of their own, so that each one's
// CPU time is its own. All traffic stays on the loopback interface.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
)

// roles are what a process of this command can be.
var roles = map[string]func(args []string) error{
	"idle":     idle,
	"fanout":   fanout,
	"latency":  latency,
	"backlog":  backlog,
	"slow":     slow,
	"gestures": gestures,
	"fair":     fair,
	"soak":     soak,
	"streams":  streams,
	// The children.
	"child-serve":  childServe,
	"child-bare":   childBare,
	"child-sink":   childSink,
	"child-actors": childActors,
	"child-flood":  childFlood,
}

func main() {
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: twinrail-bench idle|fanout|latency|backlog|slow|gestures|soak|fair|streams [flags]")
		os.Exit(2)
	}
	if err := roles[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "twinrail-bench:", err)
		os.Exit(1)
	}
}

// parse reads the flags of a role.
func parse(role string, args []string, define func(*flag.FlagSet)) {
	fs := flag.NewFlagSet(role, flag.ExitOnError)
	define(fs)
	_ = fs.Parse(args) // exits
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
