package probe

import "context"

func flags(ctx context.Context, w *world) error { return notYet(ctx, w) }
