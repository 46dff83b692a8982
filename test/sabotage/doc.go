// Package sabotage holds no code of its own: with the build tag sabotage, its
// test drops checks out of the server, one at a time, and requires that
// twinrail probe isolation catches each.
//
//	go test -tags sabotage ./test/sabotage
//
// The server has no switch for that, not even one that is compiled out. The test
// writes a changed copy of a source file, builds the binary with it in the
// original's place (go build -overlay), and runs both binaries: the sabotaged one
// as the server, the real one as the probe.
package sabotage
