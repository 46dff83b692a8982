package main

import (
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
)

// load is one run of a fan-out.
type load struct {
	rail   twinrail.Rail
	conns  int
	rate   int // messages a second
	count  int
	size   int // bytes of data
	gather time.Duration
	within bool // the server's own process publishes, as the bare program's does
}

// outcome is what a run came to.
type outcome struct {
	perCPU   float64 // deliveries per CPU second of the sender
	p50, p99 float64 // microseconds from an event's time to its reader
}

// fanout compares deliveries per CPU second.
func fanout(args []string) error {
	l := load{count: 1000, size: 200}
	var rounds int
	parse("fanout", args, func(fs *flag.FlagSet) {
		fs.IntVar(&l.conns, "n", 1000, "subscribers")
		fs.IntVar(&rounds, "rounds", 3, "runs of each, in turn; medians are printed")
	})
	for _, l.rail = range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
		for _, l.rate = range []int{100, 400, 800} {
			if err := compare(l, rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare runs, in turn, the server as it is, the server with one write for each
// message, and the bare program with and without gathering.
func compare(l load, rounds int) error {
	const off = -1
	var gathered, single, bareSingle, bareGathered []float64
	for range rounds {
		for _, v := range []struct {
			into   *[]float64
			bare   bool
			gather time.Duration
		}{{&gathered, false, 0}, {&single, false, off}, {&bareSingle, true, 0}, {&bareGathered, true, 5 * time.Millisecond}} {
			l.gather = v.gather
			o, err := l.run(v.bare)
			if err != nil {
				return err
			}
			*v.into = append(*v.into, o.perCPU)
		}
	}
	g, s, bs, bg := median(gathered), median(single), median(bareSingle), median(bareGathered)
	fmt.Printf("%s, %d subscribers, %d messages/s: %.0f deliveries per CPU second; %.2f of the bare program, "+
		"%.2f of the bare program that gathers too, %.2f of one write per message\n",
		l.rail, l.conns, l.rate, g, g/bs, g/bg, g/s)
	return nil
}

// latency compares the time to deliver at a modest rate.
func latency(args []string) error {
	l := load{rate: 50, count: 250, size: 200, within: true}
	var rounds int
	parse("latency", args, func(fs *flag.FlagSet) {
		fs.IntVar(&l.conns, "n", 1000, "subscribers")
		fs.IntVar(&rounds, "rounds", 5, "runs of each, in turn; medians are printed")
	})
	for _, l.rail = range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
		var ours, single, theirs []float64
		for range rounds {
			for _, v := range []struct {
				into   *[]float64
				bare   bool
				gather time.Duration
			}{{&ours, false, 0}, {&single, false, -1}, {&theirs, true, 0}} {
				l.gather = v.gather
				o, err := l.run(v.bare)
				if err != nil {
					return err
				}
				*v.into = append(*v.into, o.p50)
			}
		}
		fmt.Printf("%s, %d subscribers, %d messages/s: p50 %.0f us, %.2f of the bare program's, %.2f of the server's without gathering\n",
			l.rail, l.conns, l.rate, median(ours), median(ours)/median(theirs), median(ours)/median(single))
	}
	return nil
}

// run has one sender write to fresh subscribers.
func (l load) run(bare bool) (outcome, error) {
	sender, t, err := l.sender(bare)
	if err != nil {
		return outcome{}, err
	}
	defer sender.stop()
	sink, err := start("child-sink")
	if err != nil {
		return outcome{}, err
	}
	defer sink.stop()
	dialled := l.rail
	if bare {
		dialled = twinrail.RailSSE // it takes any request, and sends what it is told
	}
	if _, err := sink.ask("dial %s %s %s %d", t.addr, t.token, dialled, l.conns); err != nil {
		return outcome{}, err
	}
	before, err := sender.number("cpu")
	if err != nil {
		return outcome{}, err
	}
	if err := l.send(sender, t, bare); err != nil {
		return outcome{}, err
	}
	answer, err := sink.ask("wait %d", l.conns*l.count)
	if err != nil {
		return outcome{}, err
	}
	after, err := sender.number("cpu")
	if err != nil {
		return outcome{}, err
	}
	return l.judge(answer, after-before)
}

func (l load) sender(bare bool) (*child, target, error) {
	if !bare {
		return serve("-gather", l.gather.String())
	}
	c, err := start("child-bare")
	if err != nil {
		return nil, target{}, err
	}
	fields, err := c.line()
	if err != nil {
		c.stop()
		return nil, target{}, err
	}
	return c, target{fields[0], fields[1]}, nil
}

func (l load) send(sender *child, t target, bare bool) error {
	if bare {
		_, err := sender.ask("send %d %d %d %s %s", l.count, l.rate, l.size, l.rail, l.gather)
		return err
	}
	channel := twinrail.Commit
	if l.rail == twinrail.RailWS {
		channel = twinrail.Chat
	}
	if l.within {
		_, err := sender.ask("pace %s s1 %d %d %d", channel, l.count, l.size, l.rate)
		return err
	}
	client := &http.Client{}
	defer client.CloseIdleConnections()
	started := time.Now()
	for i := range l.count {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(l.rate))))
		if err := t.publish(client, l.rail, string(benchData(l.size))); err != nil {
			return err
		}
	}
	return nil
}

// judge refuses a run in which anything was lost or came twice.
func (l load) judge(answer []string, cpu float64) (outcome, error) {
	var values [4]float64
	for i := range values {
		v, err := strconv.ParseFloat(answer[i], 64)
		if err != nil {
			return outcome{}, err
		}
		values[i] = v
	}
	if want := float64(l.conns * l.count); values[0] != want || values[1] != 0 {
		return outcome{}, fmt.Errorf("%.0f of %.0f events delivered, %.0f out of order", values[0], want, values[1])
	}
	return outcome{values[0] / cpu, values[2], values[3]}, nil
}
