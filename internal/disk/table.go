package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// maxChanges bounds the changes of tables that wait, and those in one batch,
// which can hold all that wait.
const maxChanges = 256

// tables is what writes the rows of all tables. Its goroutine takes what is
// waiting, writes it as one batch and waits until that is synced. Lazy changes
// go the same way, only that nobody waits for them: left to itself, Pebble would
// keep what is not synced in the memory of the process.
type tables struct {
	j       *Journal
	changes chan *change
	done    chan struct{} // closed at its end
}

func newTables(j *Journal) *tables {
	return &tables{j: j, changes: make(chan *change, maxChanges), done: make(chan struct{})}
}

// change sets a row, deletes it, or, without a key, does nothing in its turn.
type change struct {
	key     []byte // of the database
	value   []byte
	delete  bool
	durable chan struct{} // closed once it is; nil where nobody waits
}

// write ends as [committer.write] does.
func (t *tables) write() {
	orderly := false
	defer func() {
		if p := recover(); p != nil {
			t.j.failure.set(fmt.Errorf("panic in a write of a table: %v", p))
		} else if !orderly {
			t.j.failure.set(errors.New("a write of a table did not return"))
		}
		close(t.done)
	}()
	for {
		changes, closing := t.collect()
		if t.j.failure.err() != nil {
			orderly = true
			return
		}
		if err := t.apply(changes); err != nil {
			t.j.failure.set(err)
			orderly = true
			return
		}
		for _, c := range changes {
			if c.durable != nil {
				close(c.durable)
			}
		}
		if closing {
			orderly = true
			return
		}
	}
}

// collect waits for a change and then takes all that are waiting, which are no
// more than maxChanges and may just be more again. When it reports that the
// journal is being closed, it has taken the last: nobody comes any more then.
func (t *tables) collect() (changes []*change, closing bool) {
	select {
	case c := <-t.changes:
		changes = append(changes, c)
	case <-t.j.quit:
		closing = true
	}
	for len(changes) < maxChanges {
		select {
		case c := <-t.changes:
			changes = append(changes, c)
		default:
			return changes, closing
		}
	}
	return changes, closing
}

func (t *tables) apply(changes []*change) error {
	batch := t.j.db.NewBatch()
	for _, c := range changes {
		var err error
		switch {
		case c.key == nil:
		case c.delete:
			err = batch.Delete(c.key, nil)
		default:
			err = batch.Set(c.key, c.value, nil)
		}
		if err != nil {
			return err
		}
	}
	if err := t.j.db.Apply(batch, pebble.Sync); err != nil {
		return err
	}
	return batch.Close()
}

// rows is a [table.Table] in the journal's database.
type rows struct {
	j      *Journal
	prefix []byte // of its keys; of no two names is one the other's beginning
}

// Table returns the table of that name, 1 to 32 of a-z, which is open as long as
// the journal is.
func (j *Journal) Table(name string) table.Table {
	outside := func(r rune) bool { return r < 'a' || r > 'z' }
	if len(name) < 1 || len(name) > 32 || slices.ContainsFunc([]rune(name), outside) {
		panic(fmt.Sprintf("disk: %q is no name of a table", name))
	}
	return &rows{j: j, prefix: append([]byte{prefixTable, byte(len(name))}, name...)}
}

// Put implements [table.Table].
func (r *rows) Put(key string, value []byte, d table.Durability) error {
	if err := table.Check(key, value); err != nil {
		return err
	}
	return r.change(&change{key: r.key(key), value: bytes.Clone(value)}, d)
}

// Delete implements [table.Table].
func (r *rows) Delete(key string, d table.Durability) error {
	if err := table.Check(key, nil); err != nil {
		return err
	}
	return r.change(&change{key: r.key(key), delete: true}, d)
}

func (r *rows) key(key string) []byte { return slices.Concat(r.prefix, []byte(key)) }

// change hands c to the writer, and waits for it where d says so. The journal is
// held open until c is handed over, so that a change that was accepted is
// written before the journal is closed.
func (r *rows) change(c *change, d table.Durability) error {
	t := r.j.tables
	if d == table.Synced {
		c.durable = make(chan struct{})
	}
	if err := r.j.begin(context.Background()); err != nil {
		return tableError(err)
	}
	var err error
	select {
	case t.changes <- c:
	case <-t.done:
		err = r.j.ended()
	case <-r.j.commits.done: // see wait
		err = r.j.ended()
	}
	r.j.end()
	if err != nil || d == table.Lazy {
		return tableError(err)
	}
	return tableError(t.wait(c))
}

// wait waits until c is durable. Should the committer fail meanwhile, this may
// be because it died within Pebble, with what it had locked.
func (t *tables) wait(c *change) error {
	select {
	case <-c.durable:
		return nil
	case <-t.done:
	case <-t.j.commits.done:
		if err := t.j.failure.err(); err != nil {
			return err
		}
		<-t.done // the journal is being closed
	}
	select {
	case <-c.durable:
		return nil
	default:
		return t.j.ended()
	}
}

type row struct {
	key   string
	value []byte
}

// Scan implements [table.Table].
func (r *rows) Scan(fn func(key string, value []byte) error) error {
	if err := r.change(&change{}, table.Synced); err != nil { // after all lazy ones
		return err
	}
	all, err := r.read()
	if err != nil {
		return tableError(err)
	}
	for _, row := range all {
		if err := fn(row.key, row.value); err != nil {
			return err
		}
	}
	return nil
}

// read returns all rows, so that fn need not be called with the journal held.
func (r *rows) read() (all []row, err error) {
	if err := r.j.begin(context.Background()); err != nil {
		return nil, err
	}
	defer r.j.end()
	end := bytes.Clone(r.prefix)
	end[len(end)-1]++ // it is a letter
	iter, err := r.j.db.NewIter(&pebble.IterOptions{LowerBound: r.prefix, UpperBound: end})
	if err != nil {
		return nil, err
	}
	for ok := iter.First(); ok; ok = iter.Next() {
		all = append(all, row{string(iter.Key()[len(r.prefix):]), bytes.Clone(iter.Value())})
	}
	if err := iter.Close(); err != nil {
		return nil, err
	}
	return all, r.j.failure.err()
}

// tableError puts an error of the journal in the terms of a table.
func tableError(err error) error {
	if errors.Is(err, journal.ErrClosed) {
		return table.ErrClosed
	}
	return err
}
