//go:build race || !cgo

package disk_test

// memTablesOnHeap says whether Pebble's tables in memory may be on Go's heap.
// Under the race detector they are in every other process.
const memTablesOnHeap = true
