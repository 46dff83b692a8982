//go:build !linux

package server

import "syscall"

func newWatcher() (watcher, error) { return peekWatcher{}, nil }

// nonblocking returns nil: here every write goes through net.Conn.
func nonblocking(any) syscall.RawConn { return nil }

func tryWrite(syscall.RawConn, []byte) (int, error) {
	panic("server: tryWrite without a raw connection")
}
