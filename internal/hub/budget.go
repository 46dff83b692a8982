package hub

import (
	"container/heap"
	"container/list"
	"sync"
	"sync/atomic"
)

// secondChances bounds how many windows that were read of late are passed over for
// one that is emptied.
const secondChances = 16

// budget bounds what the windows of all streams hold together, and empties the
// coldest where they hold more: those of the tenant that holds most, and of these
// the one that was neither extended nor read of for longest. So a tenant that wants more than
// the others pushes out its own, and can push out those of another only down to
// where that holds as much as itself.
//
// It is locked by who extends a window, after stream.mu; readers leave only a mark.
type budget struct {
	max int // bytes; 0 for no bound

	evictions atomic.Uint64

	mu      sync.Mutex
	held    int               // bytes, of all windows
	tenants map[string]*share // those that hold something
	most    shares            // the same, the one that holds most first
}

// share is what the windows of a tenant hold.
type share struct {
	tenant  string
	at      int        // its index in budget.most
	held    int        // bytes
	windows *list.List // of *stream with something held, the one extended last at the front
}

// charge is what a stream's window holds of the budget. All but read is guarded
// by budget.mu.
type charge struct {
	held    int           // bytes
	element *list.Element // in share.windows; nil where nothing is held
	left    bool          // the stream has no subscribers any more

	read atomic.Bool // set by readers, who get the window a second chance
}

// mark tells that the window was read of. Many may call it at once, so it writes
// only where that is news.
func (c *charge) mark() {
	if !c.read.Load() {
		c.read.Store(true)
	}
}

// replace makes next, which came of base, the window of st, and then empties
// windows, and be it this one, until all together are within the bound. Where the
// window was emptied since base, next is cut down to what came after that.
func (b *budget) replace(st *stream, base, next *window) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st.window.Load() != base {
		next = next.from(base.end())
	}
	if st.charge.left {
		next = &window{prev: next.end()}
	}
	st.window.Store(next)
	st.charge.read.Store(false)
	b.set(st, next.size())
	for b.max > 0 && b.held > b.max {
		b.evict()
	}
}

// leave takes the window of st, which nobody reads any more, out for good.
func (b *budget) leave(st *stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st.charge.left = true
	b.set(st, 0)
}

// set has the window of st, which was just extended, hold so many bytes.
func (b *budget) set(st *stream, bytes int) {
	c, tenant := &st.charge, st.reader.Home().TenantID
	if bytes == 0 && c.held == 0 {
		return
	}
	s := b.tenants[tenant]
	if s == nil {
		s = &share{tenant: tenant, windows: list.New()}
		b.tenants[tenant] = s
		heap.Push(&b.most, s)
	}
	b.held += bytes - c.held
	s.held += bytes - c.held
	c.held = bytes
	switch {
	case bytes == 0:
		s.windows.Remove(c.element)
		c.element = nil
	case c.element == nil:
		c.element = s.windows.PushFront(st)
	default:
		s.windows.MoveToFront(c.element)
	}
	if s.held > 0 {
		heap.Fix(&b.most, s.at)
		return
	}
	heap.Remove(&b.most, s.at)
	delete(b.tenants, tenant)
}

// evict empties the coldest window of the tenant that holds most. Its end stays,
// so that who has read all stays parked, and who has not reads the journal.
func (b *budget) evict() {
	windows := b.most[0].windows
	for range secondChances {
		coldest := windows.Back()
		if !coldest.Value.(*stream).charge.read.Swap(false) {
			break
		}
		windows.MoveToFront(coldest)
	}
	st := windows.Back().Value.(*stream)
	st.window.Store(&window{prev: st.window.Load().end()})
	b.set(st, 0)
	b.evictions.Add(1)
}

// bytes returns what all windows hold.
func (b *budget) bytes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// shares is a [heap.Interface].
type shares []*share

func (s shares) Len() int           { return len(s) }
func (s shares) Less(i, j int) bool { return s[i].held > s[j].held }
func (s shares) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].at, s[j].at = i, j
}

func (s *shares) Push(x any) {
	added := x.(*share)
	added.at = len(*s)
	*s = append(*s, added)
}

func (s *shares) Pop() any {
	last := len(*s) - 1
	removed := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return removed
}
