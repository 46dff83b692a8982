package probe

import "context"

func cookies(ctx context.Context, w *world) error { return notYet(ctx, w) }
