package probe

import "context"

func tickets(ctx context.Context, w *world) error { return notYet(ctx, w) }

func cookies(ctx context.Context, w *world) error { return notYet(ctx, w) }

func revocation(ctx context.Context, w *world) error { return notYet(ctx, w) }
