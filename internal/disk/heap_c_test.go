//go:build !race && cgo

package disk_test

// memTablesOnHeap says whether Pebble's tables in memory may be on Go's heap.
const memTablesOnHeap = false
