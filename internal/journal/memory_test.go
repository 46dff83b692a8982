package journal_test

import (
	"testing"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

func TestMemory(t *testing.T) {
	for name, stride := range map[string]uint64{"dense": 1, "sparse": 7} {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, func(_ testing.TB, c journaltest.Config) journal.Journal {
				return journal.NewMemory(journal.MemoryOptions{Retention: c.Retention, DedupeWindow: c.DedupeWindow, Stride: stride})
			})
		})
	}
}
