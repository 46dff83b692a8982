package auth

import (
	"container/heap"
	"time"
)

// deadlines holds keys, each with a time, and knows which of them is due first.
// The zero value holds none.
type deadlines[K comparable] struct {
	queue deadlineQueue[K]
}

// set gives key the time at, whether it had another one or none.
func (d *deadlines[K]) set(key K, at time.Time) {
	if i, ok := d.queue.place[key]; ok {
		d.queue.items[i].at = at
		heap.Fix(&d.queue, i)
		return
	}
	heap.Push(&d.queue, deadline[K]{key, at})
}

// remove forgets key, where it is held.
func (d *deadlines[K]) remove(key K) {
	if i, ok := d.queue.place[key]; ok {
		heap.Remove(&d.queue, i)
	}
}

// due removes the key whose time is first and returns it, if that time has come.
func (d *deadlines[K]) due(now time.Time) (key K, ok bool) {
	if len(d.queue.items) == 0 || d.queue.items[0].at.After(now) {
		return key, false
	}
	return heap.Pop(&d.queue).(deadline[K]).key, true
}

type deadline[K comparable] struct {
	key K
	at  time.Time
}

// deadlineQueue is a [heap.Interface] that knows the place of each key.
type deadlineQueue[K comparable] struct {
	items []deadline[K]
	place map[K]int
}

func (q *deadlineQueue[K]) Len() int           { return len(q.items) }
func (q *deadlineQueue[K]) Less(i, j int) bool { return q.items[i].at.Before(q.items[j].at) }

func (q *deadlineQueue[K]) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.place[q.items[i].key], q.place[q.items[j].key] = i, j
}

func (q *deadlineQueue[K]) Push(item any) {
	if q.place == nil {
		q.place = make(map[K]int)
	}
	d := item.(deadline[K])
	q.place[d.key] = len(q.items)
	q.items = append(q.items, d)
}

func (q *deadlineQueue[K]) Pop() any {
	last := len(q.items) - 1
	d := q.items[last]
	q.items[last] = deadline[K]{}
	q.items = q.items[:last]
	delete(q.place, d.key)
	return d
}
