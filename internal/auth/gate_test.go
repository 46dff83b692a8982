package auth

import (
	"testing"
)

// newGate returns a gate with the given options; without a verifier it is that of
// the secret.
func newGate(t testing.TB, o GateOptions) *Gate {
	t.Helper()
	if o.Verifier == nil {
		o.Verifier = secretVerifier(t)
	}
	g, err := NewGate(o)
	if err != nil {
		t.Fatalf("NewGate: %v", err)
	}
	return g
}
