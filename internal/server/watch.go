package server

// watcher tells links, at rest, that their peer has sent something or is gone.
type watcher interface {
	// watch has l.rail.readable called once, in a goroutine of its own.
	watch(l *link)
	// forget ends the watch; a call of readable may be under way.
	forget(l *link)
	close()
}

// peekWatcher watches any connection, at the price of a goroutine and a byte for
// each: it is what there is for TLS, and on systems without epoll.
type peekWatcher struct{}

func (peekWatcher) watch(l *link) {
	l.engine.spawn(func() {
		var b [1]byte
		n, err := l.nc.Read(b[:])
		if n == 0 && err != nil {
			l.close(errPeerGone)
			return
		}
		l.peeked = b[:n]
		l.rail.readable()
	})
}

func (peekWatcher) forget(*link) {} // closing the connection ends the read

func (peekWatcher) close() {}
