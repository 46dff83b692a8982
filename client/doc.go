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
// Both rails have this one shape: [Client.FollowCanvas] uses the SSE rail and
// [Client.FollowThread] the WS rail.
package client
