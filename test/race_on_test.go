//go:build race

package test

// raceDetector says whether the tests run under the race detector; then the
// binary does too.
const raceDetector = true
