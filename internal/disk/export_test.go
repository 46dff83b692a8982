package disk

import (
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
)

// PebbleOptions returns the options that a journal's database is opened with.
func PebbleOptions() *pebble.Options {
	o := Options{}.withDefaults()
	return pebbleOptions(o, newFailure(slog.New(slog.DiscardHandler)))
}

// MaxRecent is maxRecent.
const MaxRecent = maxRecent

// Unindexed is unindexed.
const Unindexed = unindexed
