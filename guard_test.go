package twinrail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is promised by types is tested here: that journal, hub and presence are
// reached only with an address that internal/auth made of a verified credential,
// and a session of before only with what it made of a verified resume token, so
// that a path on which the check was forgotten does not compile.

// guarded are the packages that are reached only so, or with the context itself.
var guarded = []string{"internal/journal", "internal/disk", "internal/hub", "internal/presence", "internal/session", "internal/feature"}

// compiled has the module's packages as the compiler sees them.
type compiled struct {
	fset     *token.FileSet
	importer types.Importer
}

// compile has the packages of the patterns, and all that they import, built.
func compile(t *testing.T, patterns ...string) *compiled {
	t.Helper()
	args := append([]string{"list", "-export", "-deps", "-json=ImportPath,Export"}, patterns...)
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	files := make(map[string]string)
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
	}
	c := &compiled{fset: token.NewFileSet()}
	c.importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("%s was not built", path)
		}
		return os.Open(files[path])
	})
	return c
}

func (c *compiled) load(t *testing.T, name string) *types.Package {
	t.Helper()
	p, err := c.importer.Import(module + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check returns the compiler's errors about a package with the text.
func (c *compiled) check(t *testing.T, text string) (found []string) {
	t.Helper()
	file, err := parser.ParseFile(c.fset, "elsewhere.go", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	config := types.Config{Importer: c.importer, Error: func(err error) {
		var e types.Error
		if errors.As(err, &e) {
			found = append(found, e.Msg)
		}
	}}
	_, _ = config.Check(module+"/internal/elsewhere", c.fset, []*ast.File{file}, nil) // all errors are in found
	return found
}

// unchecked are the exported functions of what is guarded that take no right, by
// the reason why they need none.
var unchecked = map[string][]string{
	"it only makes what is empty, or opens what is there for those who have a right": {
		"journal.NewMemory", "disk.Open", "hub.New", "presence.New", "(*presence.Registry).Session",
		"session.Open", "(*session.Registry).New", "feature.Open",
	},
	"it ends, or is the wiring of, all of it": {
		"(journal.Journal).Close", "(*journal.Memory).Close", "(*disk.Journal).Close", "(*session.Registry).Close", "(*session.Registry).EndLost",
		"(journal.Journal).Err", "(*journal.Memory).Err", "(*disk.Journal).Err",
		"(journal.Journal).Notify", "(*journal.Memory).Notify", "(*disk.Journal).Notify", "(*feature.Store).OnChange",
	},
	"it is about a Record, which was made of a Writer": {
		"(*journal.Record).Stored", "(*journal.Record).Owner", "(*journal.Record).ID", "(*journal.Record).Time",
		"(*journal.Record).Channel", "(*journal.Record).Digest", "(*journal.Record).Check", "(*journal.Record).Size",
		"(*journal.Record).AppendBinary",
	},
	"it is about a Sub, which was made of a Reader": {
		"(*hub.Sub).Reader", "(*hub.Sub).Cursor", "(*hub.Sub).CaughtUp", "(*hub.Sub).Lags", "(*hub.Sub).Next",
		"(*hub.Sub).SetGestures", "(*hub.Sub).Close",
	},
	"it is about a Watch, which was made of a Reader": {"(*presence.Watch).Next", "(*presence.Watch).Close"},
	"it is about members that were made of a Writer": {
		"(*presence.Session).Holds", "(*presence.Session).Leave", "(*presence.Session).Lose",
		"(*presence.Session).Regain", "(*presence.Session).Close",
	},
	"a session was claimed by a Resumption, or is new, and has no events": {
		"(*session.Session).ID", "(*session.Session).Uses", "(*session.Session).Value",
		"(*session.Session).SetValue", "(*session.Session).Lose", "(*session.Session).End", "(session.Holder).TakenOver",
	},
	"flags say what a tenant may do, and nothing that is its own": {
		"(*feature.Store).Flags", "(*feature.Flags).AllowsRail",
	},
	"it works on what its caller has already": {
		"(*journal.Stored).Check", "(*journal.Stored).Size", "(*journal.Stored).AppendBinary", "journal.ParseStored",
		"journal.StreamEpoch", "journal.TenantKey", "journal.TenantKeyOf", "(journal.Retention).Over",
		"(journal.Quota).Check", "(*journal.QuotaError).Error", "(*journal.SeqConflictError).Error",
		"(*journal.IDConflictError).Error", "(*presence.Changes).Empty", "presence.ParsePosition", "(presence.Position).String",
	},
	"it counts, for whoever runs the server": {
		"(*hub.Hub).Streams", "(*hub.Hub).WindowBytes", "(*hub.Hub).WindowEvictions", "(*hub.Hub).GesturesEvicted",
		"(*journal.Memory).Usage", "(*disk.Journal).Usage", "(*session.Registry).Len",
	},
	"a table has no streams, and its keys begin with another byte": {"(*disk.Journal).Table"},
}

// TestNothingGoesWithoutARight looks at every exported function of what is
// guarded: a new one takes a right, or says here why not.
func TestNothingGoesWithoutARight(t *testing.T) {
	c := compile(t, "./internal/...")
	excused := make(map[string]bool)
	for _, names := range unchecked {
		for _, name := range names {
			excused[name] = false
		}
	}
	taking := 0
	for _, name := range guarded {
		for _, f := range exported(c.load(t, name)) {
			_, listed := excused[short(f.FullName())]
			switch takes := mentions(f.Signature().Params(), "auth.Reader", "auth.Writer", "auth.Context", "auth.Resumption", "journal.Record"); {
			case takes && listed:
				t.Errorf("%s takes a right, and need not be excused", short(f.FullName()))
			case takes:
				taking++
			case !listed:
				t.Errorf("%s takes no auth.Reader or auth.Writer: how does it know that the check was made?", short(f.FullName()))
			}
			if listed {
				excused[short(f.FullName())] = true
			}
		}
	}
	for name, seen := range excused {
		if !seen {
			t.Errorf("%s is excused, and does not exist", name)
		}
	}
	if taking < 20 {
		t.Errorf("only %d functions take a right", taking)
	}
}

// makers are the exported functions that return a principal, a context or a
// right, and what from.
var makers = map[string]string{
	"(*auth.Verifier).Verify":     "a signature",
	"(*auth.Gate).Verify":         "a signature",
	"(*auth.Gate).Admit":          "a credential, and keys that are its own",
	"(*auth.Gate).Renew":          "a signature",
	"(*auth.Principal).Enter":     "keys that are its own",
	"(*auth.Context).RenewedBy":   "a principal that is the same actor",
	"(*auth.Context).Principal":   "what it was made of",
	"(*auth.Context).Reader":      "the grants",
	"(*auth.Context).ReaderOfAny": "the grants",
	"(*auth.Context).Writer":      "the grants",
	"(*auth.Context).Presenter":   "the grants",
	"(*auth.Gate).OpenResume":     "a signature, of what is the same actor's",
	"(*hub.Sub).Reader":           "what it was made of",

	// For tests, and as in production: a token is minted, and verified.
	"(*auth/authtest.Issuer).Principal": "a signature",
	"(*auth/authtest.Issuer).Context":   "a signature",
	"(*auth/authtest.Issuer).Reader":    "a signature",
	"(*auth/authtest.Issuer).Writer":    "a signature",
}

// written are the functions of internal/auth in which one is written down.
var written = map[string][]string{
	"Principal": {"IssueTicket", "Verify", "open", "parseLogin"},
	"Context":   {"Enter", "RenewedBy"},
	"Reader":    {"ReaderOfAny"},
	"Writer":    {"writer"},

	"Resumption": {"OpenResume"},
}

func TestOnlyAuthMakesRights(t *testing.T) {
	c := compile(t, "./internal/...")
	found := make(map[string]bool)
	for _, p := range goList(t) {
		name, ours := name(p.ImportPath)
		if !ours || !strings.HasPrefix(name, "internal/") {
			continue
		}
		for _, f := range exported(c.load(t, name)) {
			if mentions(f.Signature().Results(), "auth.Reader", "auth.Writer", "auth.Context", "auth.Principal", "auth.Resumption") {
				found[short(f.FullName())] = true
				if makers[short(f.FullName())] == "" {
					t.Errorf("%s returns a right, or who has one: what does it make it of?", short(f.FullName()))
				}
			}
		}
	}
	for name := range makers {
		if !found[name] {
			t.Errorf("%s returns no right", name)
		}
	}
	in := make(map[string][]string)
	for _, file := range sources(t, "internal/auth") {
		for _, declared := range file.Decls {
			f, ok := declared.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if literal, ok := n.(*ast.CompositeLit); ok && len(literal.Elts) > 0 {
					if name, ok := literal.Type.(*ast.Ident); ok && written[name.Name] != nil {
						in[name.Name] = append(in[name.Name], f.Name.Name)
					}
				}
				return true
			})
		}
	}
	for name, want := range written {
		if got := slices.Sorted(slices.Values(in[name])); !slices.Equal(got, want) {
			t.Errorf("a %s is written down in %q, want %q", name, got, want)
		}
	}
}

// TestNothingGoesAroundTypes looks for what could do so, in what is guarded and
// in what uses it.
func TestNothingGoesAroundTypes(t *testing.T) {
	users := []string{"internal/auth", "internal/limit", "internal/server", "internal/table", "cmd/twinrail"}
	for _, name := range slices.Concat(guarded, users) {
		for path, file := range sources(t, name) {
			for _, spec := range file.Imports {
				switch strings.Trim(spec.Path.Value, `"`) {
				case "unsafe", "reflect", "C", "plugin":
					t.Errorf("%s imports %s", path, spec.Path.Value)
				}
			}
			for _, group := range file.Comments {
				for _, comment := range group.List {
					if strings.HasPrefix(comment.Text, "//go:linkname") {
						t.Errorf("%s: %s", path, comment.Text)
					}
				}
			}
			if name == "internal/auth" || name == "cmd/twinrail" {
				continue
			}
			// A right is weighed, and grants are looked at, in one package.
			ast.Inspect(file, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Grants" {
					t.Errorf("%s looks at grants", path)
				}
				return true
			})
		}
	}
}

// sources returns the files of a package that are no tests, for whatever system.
func sources(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	files, fset := make(map[string]*ast.File), token.NewFileSet()
	for _, path := range paths {
		switch {
		case strings.HasSuffix(path, ".s"), strings.HasSuffix(path, ".syso"):
			t.Errorf("%s is not Go", path)
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files[path] = file
		}
	}
	if len(files) == 0 {
		t.Fatalf("there is nothing in %s", dir)
	}
	return files
}

// exported returns the exported functions of p, and the exported methods of its
// exported types. What another type has is reached by those, or by an interface.
func exported(p *types.Package) (all []*types.Func) {
	add := func(f *types.Func) {
		if f.Exported() {
			all = append(all, f)
		}
	}
	for _, name := range p.Scope().Names() {
		switch o := p.Scope().Lookup(name).(type) {
		case *types.Func:
			add(o)
		case *types.TypeName:
			named, ok := o.Type().(*types.Named)
			if !ok || !o.Exported() {
				continue
			}
			for m := range named.Methods() {
				add(m)
			}
			if i, ok := named.Underlying().(*types.Interface); ok {
				for m := range i.ExplicitMethods() {
					add(m)
				}
			}
		}
	}
	return all
}

// mentions reports whether one of the variables is of one of the named types, a
// pointer to it, or a slice of it.
func mentions(vars *types.Tuple, names ...string) bool {
	return slices.ContainsFunc(slices.Collect(vars.Variables()), func(v *types.Var) bool {
		at := v.Type()
		for {
			switch of := at.(type) {
			case *types.Pointer:
				at = of.Elem()
				continue
			case *types.Slice:
				at = of.Elem()
				continue
			}
			return slices.Contains(names, short(at.String()))
		}
	})
}

// short leaves out of a name what all packages have in common.
func short(name string) string { return strings.ReplaceAll(name, module+"/internal/", "") }
