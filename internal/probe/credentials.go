package probe

import "context"

func tickets(ctx context.Context, w *world) error { return notYet(ctx, w) }

func cookies(ctx context.Context, w *world) error { return notYet(ctx, w) }

func revocation(ctx context.Context, w *world) error { return notYet(ctx, w) }

// secret has a text that the server made stand for what only readers may see.
func (w *world) secret(what, text string, readers ...*party) {
	w.canaries = append(w.canaries, &canary{text, what, readers})
}
