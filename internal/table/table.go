// Package table is where the server keeps small things that are no events:
// revocations, cookie sessions, sessions of the WS rail. A table lives beside
// the journal, and is small enough that whoever owns it holds all of it in
// memory and reads it once, at the start.
package table

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// MaxKey and MaxValue bound what a table takes, in bytes.
const (
	MaxKey   = 1 << 10
	MaxValue = 64 << 10
)

// ErrClosed is returned once the database that the table is in was closed.
var ErrClosed = errors.New("table: closed")

// Durability says when a change is safe: that it survives the end of the process,
// also by SIGKILL, and that of the machine.
type Durability bool

// A Lazy change is answered at once and is safe some milliseconds later. A Synced
// one is safe when it is answered, and so is every change before it. What is left
// of the changes to a database is always a beginning of all in their order.
const (
	Lazy   Durability = false
	Synced Durability = true
)

// Table is a durable map from keys to values. Its methods may be called
// concurrently; changes of one key are then made in some order. A change that
// failed may have been made or not.
type Table interface {
	// Put sets the value of key, which is 1 to MaxKey bytes, to value, of at
	// most MaxValue bytes. It keeps neither of them.
	Put(key string, value []byte, d Durability) error
	// Delete removes key, or does nothing where there is none.
	Delete(key string, d Durability) error
	// Scan calls fn for each key in the order of their bytes, as of one moment,
	// until fn returns an error, which it returns. Changes that were answered
	// before are among them. Value is fn's; fn may use the table.
	Scan(fn func(key string, value []byte) error) error
}

// Memory is a table that a restart empties. The zero value is ready to use.
type Memory struct {
	mu   sync.Mutex
	rows map[string][]byte
}

var _ Table = (*Memory)(nil)

// Put implements [Table].
func (m *Memory) Put(key string, value []byte, _ Durability) error {
	if err := Check(key, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		m.rows = make(map[string][]byte)
	}
	m.rows[key] = slices.Clone(value)
	return nil
}

// Delete implements [Table].
func (m *Memory) Delete(key string, _ Durability) error {
	if err := Check(key, nil); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rows, key)
	return nil
}

// Scan implements [Table].
func (m *Memory) Scan(fn func(key string, value []byte) error) error {
	m.mu.Lock()
	rows := maps.Clone(m.rows)
	m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if err := fn(key, slices.Clone(rows[key])); err != nil {
			return err
		}
	}
	return nil
}

// Check returns an error where key or value is over the bounds. It is for those
// who implement [Table].
func Check(key string, value []byte) error {
	if len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue {
		return errors.New("table: a key or a value that is over the bounds")
	}
	return nil
}
