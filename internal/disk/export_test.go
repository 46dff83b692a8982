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

// MemTableBytes returns what the tables in memory take that are not yet on disk.
func (j *Journal) MemTableBytes() uint64 {
	m := j.db.Metrics().MemTable
	return m.Size + m.ZombieSize
}

// MaxRecent is maxRecent.
const MaxRecent = maxRecent

// Unindexed is unindexed.
const Unindexed = unindexed
