package main

import (
	"fmt"
	"testing"

	"github.com/twinrail/twinrail"
)

// What the client finds by itself is wrong usage, but not what a server sent.
func TestStatusOfWhatTheClientFinds(t *testing.T) {
	for code, want := range map[twinrail.Code]int{
		twinrail.CodeWrongRail: exitUsage, twinrail.CodeContextInvalid: exitUsage, twinrail.CodeBadRequest: exitUsage,
		twinrail.CodeTooLarge: exitFailed,
	} {
		if got := explain(fmt.Errorf("in the test: %w", twinrail.Errorf(code, "", "for the test"))).status; got != want {
			t.Errorf("%s is status %d, want %d", code, got, want)
		}
	}
}
