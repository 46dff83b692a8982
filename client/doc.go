// Package client publishes to Twinrail and follows its streams.
//
// A follower is a cursor. It reads what follows its cursor, and after any cut,
// silence or refusal that is not final it comes back to that cursor, with a
// jittered exponential back-off, for as long as its context lives:
//
//	c, err := client.New(client.Options{URL: "https://rt.example.com", Token: token})
//	...
//	for item, err := range c.FollowCanvas(ctx, routing, client.FollowOptions{}) {
//		if err != nil {
//			return err // final: the server said stop, or ctx ended
//		}
//		switch item.Kind {
//		case client.KindEvent:
//			apply(item.Event)
//		case client.KindReset:
//			fetchStateAnew() // what lies before item.Cursor cannot be had
//		}
//		save(item.Cursor) // to go on from here in another process
//	}
//
// Both rails have this one shape: [Client.FollowCanvas] uses the SSE rail,
// [Client.FollowThread] the WS rail, and [Client.FollowPresence] the WS rail for
// who is present at a canvas or a thread. A [Roster] keeps count of these;
// [Client.Presence] asks once.
//
// On the WS rail a follower that comes back resumes its session, so that nobody
// sees it leave; where the session is over or was refused it joins anew, at the
// same cursor. A follower whose loop is broken off, or whose context ends, leaves
// at once. One whose session goes on elsewhere ends with session_taken_over.
//
// With a TokenSource, a credential that is about to expire is renewed over the
// live connection, on either rail; without one, a follower ends when the server
// refuses its token.
package client
