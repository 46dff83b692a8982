package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// epollWatcher watches plain TCP connections with one epoll of its own, and all
// others by reading ahead. The runtime's own poller waits on that epoll, so no
// thread is held by it.
type epollWatcher struct {
	peek peekWatcher
	file *os.File // the epoll
	raw  syscall.RawConn
	done chan struct{}

	mu    sync.Mutex
	links map[int32]watched // by file descriptor
	turn  int32
}

// watched is a link under its file descriptor. The turn tells it from an earlier
// link that had the same one.
type watched struct {
	link *link
	turn int32
}

func newWatcher() (watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	// Without this the runtime would not poll it.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	w := &epollWatcher{file: file, raw: raw, done: make(chan struct{}), links: make(map[int32]watched)}
	go w.loop()
	return w, nil
}

// watch arms the watch for one report. A rail that reads is told of input, one
// that does not only of the peer's end.
func (w *epollWatcher) watch(l *link) {
	if l.raw == nil || l.sealed != nil {
		w.peek.watch(l)
		return
	}
	var events uint32 = unix.EPOLLRDHUP | unix.EPOLLONESHOT
	if _, reads := l.rail.(interface{ reads() }); reads {
		events |= unix.EPOLLIN
	}
	var armed error
	err := l.raw.Control(func(fd uintptr) { armed = w.arm(l, int32(fd), events) })
	if err = errors.Join(err, armed); err != nil {
		l.close(err)
	}
}

func (w *epollWatcher) arm(l *link, fd int32, events uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.ended.Load() {
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	entry, known := w.links[fd]
	if !known || entry.link != l {
		op = unix.EPOLL_CTL_ADD
		w.turn++
		entry = watched{l, w.turn}
		w.links[fd] = entry
	}
	return unix.EpollCtl(int(w.control()), op, int(fd), &unix.EpollEvent{Events: events, Fd: fd, Pad: entry.turn})
}

// control returns the epoll's own descriptor, which is open until close.
func (w *epollWatcher) control() (epfd uintptr) {
	_ = w.raw.Control(func(fd uintptr) { epfd = fd })
	return epfd
}

func (w *epollWatcher) forget(l *link) {
	if l.raw == nil || l.sealed != nil {
		return
	}
	// Where the connection is closed already, the kernel has forgotten it.
	_ = l.raw.Control(func(fd uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.links[int32(fd)].link != l {
			return
		}
		delete(w.links, int32(fd))
		_ = unix.EpollCtl(int(w.control()), unix.EPOLL_CTL_DEL, int(fd), nil)
	})
}

func (w *epollWatcher) loop() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 128)
	for {
		var n int
		var failed error
		err := w.raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n > 0 || (failed != nil && failed != unix.EINTR)
		})
		if err != nil || (failed != nil && failed != unix.EINTR) {
			return // closed
		}
		for _, ev := range events[:max(n, 0)] {
			if l := w.find(ev.Fd, ev.Pad); l != nil {
				l.engine.spawn(l.rail.readable)
			}
		}
	}
}

func (w *epollWatcher) find(fd, turn int32) *link {
	w.mu.Lock()
	defer w.mu.Unlock()
	if entry := w.links[fd]; entry.turn == turn {
		return entry.link
	}
	return nil
}

func (w *epollWatcher) close() {
	_ = w.file.Close()
	<-w.done
}

// nonblocking returns what tryWrite takes, or nil where nc is not a plain TCP
// connection.
func nonblocking(nc net.Conn) syscall.RawConn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tryWrite writes what the kernel takes without waiting: maybe nothing.
func tryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	rawErr := raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.Write(int(fd), b)
			if err != unix.EINTR {
				return true
			}
		}
	})
	n = max(n, 0)
	if err == unix.EAGAIN {
		err = nil
	}
	if rawErr != nil {
		err = rawErr
	}
	return n, err
}
