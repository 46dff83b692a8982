package twinrail_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What types do not say: a read of the journal gives all of the stream, whoever
// it is for. So those who read are few, and so are those who decide what of it
// goes out, all by the one rule.

// reading are the functions that read entries, and where the rule is asked.
var reading = map[string]string{
	"(*hub.stream).read":    "pass, for each subscriber of the window",
	"(*hub.Sub).lag":        "itself",
	"(*server.Server).page": "itself",
}

// asking are those that ask [auth.Reader.Admits], and of what.
var asking = map[string]string{
	"(*hub.Sub).pass":           "entries in the window",
	"(*hub.Sub).lag":            "entries behind it",
	"(*hub.viewer).gather":      "gestures",
	"(*server.Server).page":     "history",
	"(*presence.member).seenBy": "members",
}

func TestWhoReadsAsks(t *testing.T) {
	c := compile(t, "./internal/...")
	reads, asks := make(map[string]string), make(map[string]string)
	for _, p := range goList(t) {
		name, ours := name(p.ImportPath)
		if !ours || !strings.HasPrefix(name, "internal/") || name == "internal/journal/journaltest" {
			continue
		}
		c.calls(t, name, func(caller, callee string) {
			switch callee {
			case "(journal.Journal).Read", "(*journal.Memory).Read", "(*disk.Journal).Read":
				reads[caller] = reading[caller]
			case "(auth.Reader).Admits":
				asks[caller] = asking[caller]
			}
		})
	}
	for what, each := range map[string]struct{ got, want map[string]string }{
		"read the journal": {reads, reading}, "ask Admits": {asks, asking},
	} {
		if !maps.Equal(each.got, each.want) {
			t.Errorf("those who %s are %q, want %q", what, slices.Sorted(maps.Keys(each.got)), slices.Sorted(maps.Keys(each.want)))
		}
	}
}

// calls calls found with each function of the package and each that it names.
func (c *compiled) calls(t *testing.T, dir string, found func(caller, callee string)) {
	t.Helper()
	p, err := build.ImportDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(c.fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := &types.Info{Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: c.importer}
	if _, err := config.Check(module+"/"+dir, c.fset, files, info); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, declared := range file.Decls {
			caller := "a variable of " + dir
			if f, ok := declared.(*ast.FuncDecl); ok {
				caller = short(info.Defs[f.Name].(*types.Func).FullName())
			}
			ast.Inspect(declared, func(n ast.Node) bool {
				if name, ok := n.(*ast.Ident); ok {
					if f, ok := info.Uses[name].(*types.Func); ok {
						found(caller, short(f.FullName()))
					}
				}
				return true
			})
		}
	}
}
