package client

import (
	"context"
	"sync"
)

// renewal gets a new token for a connection whose old one is about to expire,
// while the connection is read on. Where that fails nothing is lost: the
// connection ends with its token, and the follower comes back with a new one.
type renewal struct {
	f     *follower
	group sync.WaitGroup

	mu      sync.Mutex
	running bool
	token   string // the newest that the connection was to go on with
}

// start renews the token in the background, and has send give it to the server.
// One renewal runs at a time.
func (r *renewal) start(ctx context.Context, send func(ctx context.Context, token string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return
	}
	r.running = true
	old := r.token
	r.group.Go(func() { r.run(ctx, old, send) })
}

func (r *renewal) run(ctx context.Context, old string, send func(context.Context, string) error) {
	token, err := r.f.c.credential.replace(ctx, old)
	if err == nil && token != old {
		r.mu.Lock()
		r.token = token
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, r.f.c.silence)
		defer cancel()
		_ = send(ctx, token)
	}
	r.mu.Lock()
	r.running = false
	r.mu.Unlock()
}

// end waits for what runs, once the context of the connection has ended, and
// tells the follower which token the connection had last.
func (r *renewal) end() {
	r.group.Wait()
	r.f.token = r.token
}
