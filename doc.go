// Package twinrail is the vocabulary of Twinrail, a realtime gateway for
// multi-tenant products: routing keys, cursors, events, identities, error codes,
// and the frames of both rails.
//
// # The idea
//
// Every subscriber is a cursor. A stream is an ordered log; a subscriber is a
// position in it. Replay, live delivery, a slow reader and a reconnect are one
// loop: read what follows the cursor; if there is nothing, sleep until woken;
// write; move the cursor. No subscriber has a queue, and nothing is ever
// stitched together.
//
//	                    POST /v1/publish, WS publish
//	                               │
//	        auth: credential, RequestContext, grants
//	                               │ auth.Writer
//	                               ▼
//	journal: append, fsync ──── wake ────► hub: the hot window of each stream
//	     ▲                                  │ auth.Reader
//	     └──── pages, for who lags ──── Sub.Next
//	                                        │
//	                       ┌────────────────┴───────────────┐
//	                   SSE rail                          WS rail
//	         commit artifact gesture              chat tool presence
//
// # The map
//
// Imports go down only:
//
//	twinrail              the vocabulary (this package)
//	client                the Go client
//	internal/table        small durable maps, for what is no event
//	internal/auth         the way in; the only maker of authorized addresses
//	internal/feature      Tenant-0 flags
//	internal/limit        rates that last, and counts
//	internal/journal      the contract of the log, the record, the log in memory
//	internal/disk         the log on Pebble, the default
//	internal/hub          streams, the hot window, Sub.Next
//	internal/presence     who is where
//	internal/session      what outlives a connection of the WS rail
//	internal/server       the two rails and the HTTP interface
//	cmd/twinrail          the binary
package twinrail
