// Package test holds no code of its own: its tests build the real binary, and
// follow its streams with clients that this project did not write, through kills
// of the process, bad networks and slow reads.
//
// The clients are npm's eventsource and ws, Go's go-sse and coder/websocket, and
// the native EventSource and WebSocket of a Chromium; where the network is half
// open, and for the examples, the Go client and the examples' own code come to
// that. What is not installed is
// skipped, or, with TWINRAIL_REQUIRE_ORACLES=1, a failure. To install it: Node.js
// 20 or newer, npm ci in this folder, and a Chromium (a package of most systems)
// in the PATH or named by TWINRAIL_CHROMIUM.
package test
