package twinrail_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// heading matches the number of a promise in docs/threat-model.md, and named a
// link to a test there, also to a part of one.
var (
	heading = regexp.MustCompile(`(?m)^\*\*(\d+)\. `)
	named   = regexp.MustCompile("\\[`(\\w+)((?:/[^`]+)?)`\\]\\(([^)]+)\\)")
)

// TestPromisesHaveTests follows every link of the threat model from a promise to
// a test.
func TestPromisesHaveTests(t *testing.T) {
	text := readDoc(t, "docs/threat-model.md")
	_, promises, found := strings.Cut(text, "\n## What is promised\n")
	promises, rest, ended := strings.Cut(promises, "\n## What is not promised\n")
	if !found || !ended || heading.MatchString(rest) {
		t.Fatal("docs/threat-model.md has not the two sections that it should")
	}
	at := heading.FindAllStringSubmatchIndex(promises, -1)
	if len(at) < 20 {
		t.Fatalf("found only %d promises", len(at))
	}
	for i, m := range at {
		number, end := promises[m[2]:m[3]], len(promises)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		if number != strconv.Itoa(i+1) {
			t.Errorf("promise %s is the %dth", number, i+1)
		}
		if !named.MatchString(promises[m[0]:end]) {
			t.Errorf("promise %s names no test", number)
		}
	}
	for _, link := range named.FindAllStringSubmatch(text, -1) {
		wantTest(t, "docs/threat-model.md", link[3], link[1])
	}
}

// listed matches the tests in a table of docs/guarantees.md, and the file that
// they are in; a part of a test may stand beside it.
var listed = regexp.MustCompile("((?:`[^`]+`, )+)\\[[^\\]]+\\]\\(([^)]+_test\\.go)\\)")

// TestGuaranteesHaveTests does the same for the guarantees.
func TestGuaranteesHaveTests(t *testing.T) {
	lists := listed.FindAllStringSubmatch(readDoc(t, "docs/guarantees.md"), -1)
	if len(lists) < 50 {
		t.Fatalf("found only %d lists of tests", len(lists))
	}
	for _, list := range lists {
		for name := range strings.SplitSeq(strings.TrimSuffix(list[1], ", "), ", ") {
			name, _, _ = strings.Cut(strings.Trim(name, "`"), "/")
			wantTest(t, "docs/guarantees.md", list[2], name)
		}
	}
}

// wantTest fails unless the file, as seen from the document, has a test of that
// name.
func wantTest(t *testing.T, doc, link, name string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(doc), link)
	isTest := strings.HasSuffix(path, "_test.go") && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz"))
	for _, declared := range parse(t, path).Decls {
		if f, ok := declared.(*ast.FuncDecl); ok && isTest && f.Recv == nil && f.Name.Name == name {
			return
		}
	}
	t.Errorf("%s: there is no test %s in %s", doc, name, path)
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func readDoc(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWaysInAreListed: whatever endpoint or frame the server has is a way in that
// the threat model knows of.
func TestWaysInAreListed(t *testing.T) {
	_, ways, _ := strings.Cut(readDoc(t, "docs/threat-model.md"), "\n## Ways in\n")
	ways, _, _ = strings.Cut(ways, "\n## ")
	values := make(map[string]string) // of the constants in wire.go
	for _, declared := range parse(t, "wire.go").Decls {
		ast.Inspect(declared, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				if text, ok := spec.Values[0].(*ast.BasicLit); ok && text.Kind == token.STRING {
					values[spec.Names[0].Name], _ = strconv.Unquote(text.Value)
				}
			}
			return true
		})
	}
	for _, in := range []struct {
		file, function, prefix string
		least                  int
	}{
		{"internal/server/server.go", "routes", "Path", 10},
		{"internal/server/wsops.go", "dispatch", "Op", 8},
	} {
		used := make(map[string]bool)
		for _, declared := range parse(t, in.file).Decls {
			if f, ok := declared.(*ast.FuncDecl); !ok || f.Name.Name != in.function {
				continue
			}
			ast.Inspect(declared, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, in.prefix) {
					if p, ok := s.X.(*ast.Ident); ok && p.Name == "twinrail" {
						used[s.Sel.Name] = true
					}
				}
				return true
			})
		}
		if len(used) < in.least {
			t.Errorf("found only %d of %s in %s", len(used), in.prefix, in.file)
		}
		for name := range used {
			if value := values[name]; value == "" || !strings.Contains(ways, value) {
				t.Errorf("docs/threat-model.md knows of no way in by %s, %q", name, value)
			}
		}
	}
}

// linked matches a link within the repository, and an anchor in a document.
var linked = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]+)?\)`)

// TestLinks follows the links of all documents to files, and to headings.
func TestLinks(t *testing.T) {
	docs, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, doc := range append(docs, more...) {
		for _, link := range linked.FindAllStringSubmatch(readDoc(t, doc), -1) {
			seen++
			path := doc
			if link[1] != "" {
				path = filepath.Join(filepath.Dir(doc), link[1])
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %v", doc, err)
			} else if link[2] != "" && strings.HasSuffix(path, ".md") && !headings(readDoc(t, path))[link[2]] {
				t.Errorf("%s: there is no heading %s in %s", doc, link[2], path)
			}
		}
	}
	if seen < 100 {
		t.Errorf("found only %d links", seen)
	}
}

// headings returns the anchors of a document's headings, as GitHub makes them.
func headings(text string) map[string]bool {
	anchors := make(map[string]bool)
	for line := range strings.Lines(text) {
		level, title, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.Trim(level, "#") != "" {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_':
				return r
			}
			return -1
		}, strings.ToLower(title))
		anchors["#"+anchor] = true
	}
	return anchors
}
