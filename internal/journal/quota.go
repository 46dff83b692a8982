package journal

import (
	"fmt"
	"strings"

	"github.com/twinrail/twinrail"
)

// Quota bounds what each tenant may have in each of its envs: in what follows a
// tenant is the two together. A zero bound is none.
type Quota struct {
	// Streams bounds the streams that something was ever appended to. One that
	// was emptied by trimming counts like any other: where it ended is kept, so
	// that whoever had seen all of it is told what comes next, and not to start
	// over.
	Streams int64
	// Bytes bounds what all streams retain together, in [Record.Size].
	Bytes int64
}

// Usage is what a tenant has of what its [Quota] bounds.
type Usage struct {
	Streams int64
	Bytes   int64
}

// Check returns a *QuotaError where a tenant that has used what it says would be
// over a bound with more. A bound that more does not add to is not looked at, so
// that a tenant over a bound that was lowered may do what does not count.
func (q Quota) Check(used, more Usage) error {
	if q.Streams > 0 && more.Streams > 0 && used.Streams+more.Streams > q.Streams {
		return &QuotaError{What: "streams", Limit: q.Streams}
	}
	if q.Bytes > 0 && more.Bytes > 0 && used.Bytes+more.Bytes > q.Bytes {
		return &QuotaError{What: "bytes", Limit: q.Bytes}
	}
	return nil
}

// QuotaError says that an append would have taken its tenant over a bound.
type QuotaError struct {
	What  string // "streams" or "bytes"
	Limit int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("journal: the tenant would have more than %d %s in this env", e.Limit, e.What)
}

// TenantKey returns the part of a home key that says whose the stream is:
// tenant and env, each escaped and terminated as in the home key, so that none is
// a prefix of another. It is empty for what is no home key.
func TenantKey(home string) string {
	_, rest, _ := strings.Cut(home, "/")
	end := 0
	for range 2 {
		n := strings.IndexByte(rest[end:], '/')
		if n < 0 {
			return ""
		}
		end += n + 1
	}
	return rest[:end]
}

// TenantKeyOf returns the [TenantKey] of all streams of the tenant in the env.
func TenantKeyOf(tenant, env string) string {
	return TenantKey(twinrail.Home{Kind: twinrail.CanvasStream, TenantID: tenant, Env: env}.Key())
}
