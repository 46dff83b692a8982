package main

import (
	"bytes"
	"context"
	"io"
	"time"
)

// lastMoment is how long a write that is under way when a signal comes may take.
const lastMoment = time.Second / 4

// outlet writes to where a write may wait for ever, such as a full pipe: no signal
// ends that. The write that waits when ctx ends is left behind, and none follows it.
type outlet struct {
	ctx context.Context
	to  io.Writer
}

func (o outlet) Write(b []byte) (int, error) {
	if o.ctx.Err() != nil {
		return 0, context.Cause(o.ctx)
	}
	type result struct {
		n   int
		err error
	}
	written := make(chan result, 1)
	b = bytes.Clone(b) // the caller's, who may use it again
	go func() {
		n, err := o.to.Write(b)
		written <- result{n, err}
	}()
	select {
	case r := <-written:
		return r.n, r.err
	case <-o.ctx.Done():
	}
	select {
	case r := <-written:
		return r.n, r.err
	case <-time.After(lastMoment):
		return 0, context.Cause(o.ctx)
	}
}
