package twinrail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/twinrail/twinrail"

// floors says which packages of this module each one may import: imports go
// down only. A new package gets its line here first.
var floors = map[string][]string{
	".":                            {},
	"client":                       {"."},
	"internal/table":               {},
	"internal/table/tabletest":     {"internal/table"},
	"internal/auth":                {".", "internal/table"},
	"internal/auth/authtest":       {".", "internal/auth"},
	"internal/feature":             {".", "internal/auth", "internal/table"},
	"internal/journal":             {".", "internal/auth"},
	"internal/limit":               {"."},
	"internal/journal/journaltest": {".", "internal/auth", "internal/auth/authtest", "internal/journal"},
	"internal/disk":                {".", "internal/auth", "internal/journal", "internal/table"},
	"internal/presence":            {".", "internal/auth"},
	"internal/session":             {".", "internal/auth", "internal/table"},
	"internal/hub":                 {".", "internal/auth", "internal/journal"},
	"internal/server":              {".", "internal/auth", "internal/feature", "internal/journal", "internal/hub", "internal/limit", "internal/presence", "internal/session", "internal/table"},
	"internal/probe":               {".", "internal/auth"},
	"cmd/twinrail":                 {".", "client", "internal/auth", "internal/feature", "internal/journal", "internal/disk", "internal/hub", "internal/probe", "internal/server", "internal/table"},
	"test":                         {}, // browsers and npm packages against the binary
	"test/sabotage":                {}, // the binary with checks dropped, and the probe
	"cmd/twinrail-bench":           {".", "client", "internal/auth", "internal/auth/authtest", "internal/journal", "internal/disk", "internal/hub", "internal/server"},
}

// owners says which packages alone may import a library that the others are to
// be kept free of. Tests may use any.
var owners = map[string][]string{
	"github.com/cockroachdb/pebble":       {"internal/disk"},
	"github.com/golang-jwt/jwt":           {"internal/auth"},
	"github.com/MicahParks":               {"internal/auth"},
	"github.com/gobwas/ws":                {"internal/server", "internal/probe", "cmd/twinrail-bench"}, // the latter two have bare clients
	"github.com/coder/websocket":          {"client"},
	"github.com/alecthomas/kong":          {"cmd/twinrail"},
	"github.com/prometheus/client_golang": {"internal/server"},
}

type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// name returns the package's place in the module, and whether it is ours.
func name(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func goList(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsGoDown(t *testing.T) {
	packages := goList(t)
	standard := map[string]bool{"C": true, "unsafe": true}
	for _, p := range packages {
		if p.Standard {
			standard[p.ImportPath] = true
		}
	}
	seen := 0
	for _, p := range packages {
		from, ours := name(p.ImportPath)
		if !ours {
			continue
		}
		seen++
		allowed, known := floors[from]
		if !known {
			t.Errorf("%s is not in the table: say which packages it may import", from)
			continue
		}
		for _, path := range p.Imports {
			to, ours := name(path)
			if ours && !slices.Contains(allowed, to) {
				t.Errorf("%s must not import %s", from, to)
			}
			if from == "." && !standard[path] {
				t.Errorf("the vocabulary must not import %s", path)
			}
		}
	}
	if seen < 3 {
		t.Errorf("saw only %d packages of the module", seen)
	}
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range goList(t) {
		from, ours := name(p.ImportPath)
		if !ours {
			continue
		}
		for _, path := range p.Imports {
			for library, allowed := range owners {
				within := path == library || strings.HasPrefix(path, library+"/")
				if within && !slices.Contains(allowed, from) {
					t.Errorf("%s imports %s, which is for %v alone", from, path, allowed)
				}
			}
		}
	}
}
