package probe

import "context"

func presenceSnapshot(ctx context.Context, w *world) error { return notYet(ctx, w) }

func presenceChanges(ctx context.Context, w *world) error { return notYet(ctx, w) }
