package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// Follow a canvas from the oldest event that is kept, and print what is
// committed there.
func ExampleClient_FollowCanvas() {
	c, err := client.New(client.Options{URL: "http://127.0.0.1:8080", Token: os.Getenv("TWINRAIL_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	canvas := twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1",
	}
	for item, err := range c.FollowCanvas(context.Background(), canvas, client.FollowOptions{From: twinrail.CursorEarliest}) {
		if err != nil {
			log.Fatal(err)
		}
		switch item.Kind {
		case client.KindEvent:
			fmt.Printf("%d %s\n", item.Event.Seq, item.Event.Data)
		case client.KindReset:
			fmt.Printf("fetch the state anew: %s\n", item.Reset.Reason)
		}
	}
}

// Be present at a canvas, and print who else is whenever that changes.
func ExampleClient_FollowPresence() {
	c, err := client.New(client.Options{URL: "http://127.0.0.1:8080", TokenSource: newToken})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	canvas := twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1",
	}
	var here client.Roster
	for item, err := range c.FollowPresence(context.Background(), canvas, []byte(`{"color":"teal"}`)) {
		if err != nil {
			log.Fatal(err)
		}
		if item.Kind != client.KindPresence {
			continue
		}
		here.Apply(item.Presence)
		for _, m := range here.Members() {
			fmt.Printf("%s %s\n", m.ActorID, m.State)
		}
	}
}

// newToken gets a credential from wherever the application makes them.
func newToken(context.Context) (string, error) { return os.Getenv("TWINRAIL_TOKEN"), nil }
