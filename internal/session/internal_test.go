package session

import (
	"testing"
	"unsafe"
)

// There is one for each connection: past this it takes the allocator's next size.
func TestSize(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 80 {
		t.Errorf("a session takes %d bytes", size)
	}
}
