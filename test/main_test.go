package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// binDir is where the binary under test is built, once for all tests.
var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "twinrail-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binDir)
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's toxics log by themselves
	return m.Run()
}

// build returns the path of the binary under test.
var build = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(binDir, "twinrail")
	args := []string{"build", "-o", bin}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/twinrail/twinrail/cmd/twinrail")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})
