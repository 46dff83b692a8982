// Package intrusive has a doubly linked list whose links are in its elements, so
// that one can be taken out from anywhere with neither a search nor an allocation.
package intrusive

// Links is embedded by what is to be in a [List] of T. An element is in one list
// at a time.
type Links[T any] struct{ prev, next *T }

func (l *Links[T]) links() *Links[T] { return l }

// Next returns the element behind this one in its list, or nil.
func (l *Links[T]) Next() *T { return l.next }

// Prev returns the element before this one in its list, or nil.
func (l *Links[T]) Prev() *T { return l.prev }

type element[T any] interface {
	*T
	links() *Links[T]
}

// List is a list of elements of type T, which embeds [Links]; P is *T. The zero
// value is empty.
type List[T any, P element[T]] struct {
	first, last *T
	n           int
}

// First returns the element at the front, or nil.
func (l *List[T, P]) First() *T { return l.first }

// Last returns the element at the back, or nil.
func (l *List[T, P]) Last() *T { return l.last }

// Len returns how many elements there are.
func (l *List[T, P]) Len() int { return l.n }

// Push puts x, which is in no list, at the back.
func (l *List[T, P]) Push(x *T) {
	*P(x).links() = Links[T]{prev: l.last}
	if l.last == nil {
		l.first = x
	} else {
		P(l.last).links().next = x
	}
	l.last = x
	l.n++
}

// Remove takes x out of l, in which it is. It keeps no other element in memory.
func (l *List[T, P]) Remove(x *T) {
	at := P(x).links()
	if at.prev == nil {
		l.first = at.next
	} else {
		P(at.prev).links().next = at.next
	}
	if at.next == nil {
		l.last = at.prev
	} else {
		P(at.next).links().prev = at.prev
	}
	*at = Links[T]{}
	l.n--
}
