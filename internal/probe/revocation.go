package probe

import "context"

func revocation(ctx context.Context, w *world) error { return notYet(ctx, w) }
