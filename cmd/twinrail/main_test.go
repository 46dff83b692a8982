package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be twinrail itself where a script calls that.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"twinrail": main})
}
