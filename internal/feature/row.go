package feature

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/twinrail/twinrail"
)

// key names a setting.
type key struct {
	scope
	flag string
}

// row returns k as the key of its row, injective on all keys:
//
//	t_acme/dev/replay
//	/dev/replay           the platform's
func (k key) row() string {
	return url.PathEscape(k.tenant) + "/" + url.PathEscape(k.env) + "/" + url.PathEscape(k.flag)
}

// parseKey is the inverse of row for the keys of valid tenants and envs, and of
// flags of other versions too.
func parseKey(row string) (key, error) {
	parts := strings.Split(row, "/")
	if len(parts) == 3 {
		k := key{scope{parts[0], parts[1]}, parts[2]}
		tenant := k.tenant == platform || twinrail.ValidKeyValue(twinrail.KeyTenant, k.tenant)
		if tenant && twinrail.ValidKeyValue(twinrail.KeyEnv, k.env) && k.flag != "" && k.row() == row {
			return k, nil
		}
	}
	return key{}, fmt.Errorf("feature: the stored setting %q is damaged", row)
}

// settingRow is the value of a setting's row. By, At and RequestID are for
// whoever looks into it.
type settingRow struct {
	Value jsontext.Value `json:"value"`
	// Overridable is of the platform's settings, and of no tenant's.
	Overridable *bool     `json:"overridable,omitzero"`
	By          string    `json:"by"`
	At          time.Time `json:"at"`
	RequestID   string    `json:"request_id"`
}

// parseRow reads the value of k's row.
func parseRow(k key, f *flag, value []byte) (setting, error) {
	var row settingRow
	err := json.Unmarshal(value, &row, json.RejectUnknownMembers(true))
	if err == nil && (row.At.IsZero() || (row.Overridable != nil) != (k.tenant == platform)) {
		err = errors.New("a member is missing, or one too many")
	}
	n := 0
	if err == nil {
		n, err = f.parse(row.Value)
	}
	if err != nil {
		return setting{}, fmt.Errorf("feature: the stored setting %q is damaged: %w", k.row(), err)
	}
	return setting{n, row.Overridable != nil && *row.Overridable}, nil
}
