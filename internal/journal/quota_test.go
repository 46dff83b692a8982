package journal_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// The key of a tenant is the same in all its streams in an env, and no other's.
func TestTenantKey(t *testing.T) {
	value := rapid.SampledFrom([]string{"", "a", "b", "a/", "/a", "a/b", "=2F", "dev", "a=", "é"})
	home := rapid.Custom(func(t *rapid.T) twinrail.Home {
		draw := func(label string) string { return value.Draw(t, label) }
		kind := rapid.SampledFrom([]twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream}).Draw(t, "kind")
		return twinrail.Home{
			Kind: kind, TenantID: draw("tenant"), Env: draw("env"),
			WorkspaceID: draw("workspace"), ProjectID: draw("project"), AppID: draw("app"), ID: draw("id"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := home.Draw(t, "a"), home.Draw(t, "b")
		same := a.TenantID == b.TenantID && a.Env == b.Env
		if x, y := journal.TenantKey(a.Key()), journal.TenantKey(b.Key()); (x == y) != same {
			t.Errorf("%+v has the key %q, %+v %q", a, x, b, y)
		}
		if x, y := journal.TenantKey(a.Key()), journal.TenantKeyOf(a.TenantID, a.Env); x != y {
			t.Errorf("%+v has the key %q, its tenant %q", a, x, y)
		}
	})
	if got := journal.TenantKeyOf("t_acme", "dev"); got != "t_acme/dev/" { // it is stored
		t.Errorf("the key of t_acme in dev is %q", got)
	}
	for _, key := range []string{"", "c", "c/", "c/t_acme", "c/t_acme/dev"} {
		if got := journal.TenantKey(key); got != "" {
			t.Errorf("%q, which is no home key, has the tenant %q", key, got)
		}
	}
}

// A bound that was lowered is in nobody's way who does not add to it.
func TestQuotaCheck(t *testing.T) {
	used := journal.Usage{Streams: 10, Bytes: 1000}
	for _, tt := range []struct {
		quota journal.Quota
		more  journal.Usage
		want  error
	}{
		{journal.Quota{}, journal.Usage{Streams: 1, Bytes: 1}, nil},
		{journal.Quota{Streams: 11, Bytes: 1001}, journal.Usage{Streams: 1, Bytes: 1}, nil},
		{journal.Quota{Streams: 10, Bytes: 1000}, journal.Usage{Streams: 1, Bytes: 1}, &journal.QuotaError{What: "streams", Limit: 10}},
		{journal.Quota{Streams: 11, Bytes: 1000}, journal.Usage{Streams: 1, Bytes: 1}, &journal.QuotaError{What: "bytes", Limit: 1000}},
		{journal.Quota{Streams: 5}, journal.Usage{Bytes: 1}, nil},
		{journal.Quota{Streams: 5, Bytes: 5}, journal.Usage{}, nil},
		{journal.Quota{Bytes: 5}, journal.Usage{Bytes: 1}, &journal.QuotaError{What: "bytes", Limit: 5}},
	} {
		err := tt.quota.Check(used, tt.more)
		var got, want *journal.QuotaError
		if errors.As(err, &got) != errors.As(tt.want, &want) || got != nil && *got != *want {
			t.Errorf("%+v with %+v: %v, want %v", tt.quota, tt.more, err, tt.want)
		}
	}
}
