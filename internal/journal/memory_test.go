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
				return journal.NewMemory(journal.MemoryOptions{Retention: c.Retention, Quota: c.Quota, DedupeWindow: c.DedupeWindow, Stride: stride})
			})
		})
	}
}

// memoryLog is a log that is lost with its journal.
type memoryLog struct{}

func (memoryLog) Open(c journaltest.Config) (journaltest.Counted, error) {
	return journal.NewMemory(journal.MemoryOptions{Retention: c.Retention, Quota: c.Quota, DedupeWindow: c.DedupeWindow, Stride: 3}), nil
}

func (memoryLog) Durable() bool { return false }

func TestMemoryModel(t *testing.T) {
	journaltest.RunModel(t, func() journaltest.Log { return memoryLog{} })
}
