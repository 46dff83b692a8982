package feature

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// No two settings have the same row, whatever their names are made of, and every
// valid one is found again.
func TestRowKeys(t *testing.T) {
	odd := rapid.StringOfN(rapid.RuneFrom([]rune("/%2F")), 0, 4, -1)
	names := func(valid ...string) *rapid.Generator[string] { return rapid.OneOf(odd, rapid.SampledFrom(valid)) }
	tenant, env, flag := names(platform, "t_a", "t_0"), names("dev", "Prod-1"), names("replay", "of_another_version")
	rapid.Check(t, func(t *rapid.T) {
		a := key{scope{tenant.Draw(t, "tenant"), env.Draw(t, "env")}, flag.Draw(t, "flag")}
		// b is what one might take for a, were the parts just put together.
		parts := strings.Split(a.tenant+"/"+a.env+"/"+a.flag, "/")
		i := rapid.IntRange(1, len(parts)-2).Draw(t, "i")
		j := rapid.IntRange(i+1, len(parts)-1).Draw(t, "j")
		join := func(parts []string) string { return strings.Join(parts, "/") }
		b := key{scope{join(parts[:i]), join(parts[i:j])}, join(parts[j:])}
		if (a == b) != (a.row() == b.row()) {
			t.Errorf("%q and %q have the rows %q and %q", a, b, a.row(), b.row())
		}
		k, err := parseKey(a.row())
		valid := (a.tenant == platform || twinrail.ValidKeyValue(twinrail.KeyTenant, a.tenant)) &&
			twinrail.ValidKeyValue(twinrail.KeyEnv, a.env) && !strings.ContainsAny(a.flag, "/%") && a.flag != ""
		if valid != (err == nil) || valid && k != a {
			t.Errorf("%q is read as %q (%v)", a, k, err)
		}
	})
}

func FuzzRow(f *testing.F) {
	const at = `"by":"u_1","at":"2026-11-23T10:00:00Z","request_id":"r"}`
	f.Add("t_acme/dev/replay", []byte(`{"value":false,`+at))
	f.Add("/dev/gesture_rate", []byte(`{"value":7,"overridable":true,`+at))
	f.Add("t_/dev/replay", []byte(`{}`))
	f.Fuzz(func(t *testing.T, row string, value []byte) {
		m := new(table.Memory)
		if m.Put(row, value, table.Lazy) != nil {
			return
		}
		s, err := Open(m, Options{})
		if err != nil {
			return
		}
		for k, set := range s.settings {
			f := find(k.flag)
			again, err := f.parse(f.format(set.value))
			if k.row() != row || err != nil || again != set.value || set.value < f.least || set.value > f.most {
				t.Errorf("%q %q is read as %q %+v (%v)", row, value, k, set, err)
			}
		}
	})
}
