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

// elsewhere is a package of the module that is handed everything that a handler
// has, and does what is in the place of the verb.
const elsewhere = `package elsewhere

import (
	"context"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/session"
)

func handle(
	ctx context.Context, log journal.Journal, h *hub.Hub, people *presence.Registry, here *presence.Session,
	sessions *session.Registry, holder session.Holder, resumption auth.Resumption,
	gate *auth.Gate, flags *feature.Store, c *auth.Context, reader auth.Reader, writer auth.Writer,
	record journal.Record, kept journal.Entry, stated twinrail.Routing, address twinrail.Address,
	id twinrail.Identity, event twinrail.Event, from hub.From, expect journal.Expect, cursor twinrail.Cursor,
) {
	%s
}
`

// theRightWay is what there is to do, done with the check. It compiles.
const theRightWay = `
	r, err := c.Reader(stated, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
	if err != nil {
		return
	}
	h.Subscribe(ctx, r, from, nil)
	log.Read(ctx, r, 0, 1)
	log.Bounds(ctx, r)
	log.Seek(ctx, r, cursor)
	people.Members(r, presence.Position{}, 1)
	people.Watch(r, nil, "", 1)
	w, err := c.Writer(stated, twinrail.Commit)
	if err != nil {
		return
	}
	log.Append(ctx, []journal.Record{journal.NewRecord(w, event), record}, expect)
	h.Gesture(w, event)
	here.Enter(w, "", nil)
	flags.Set(c, "", twinrail.FlagRequest{})
	gate.Revoke(c, twinrail.RevocationRequest{})
	gate.IssueTicket(c, twinrail.TicketRequest{})
	resumed, err := gate.OpenResume(c, "")
	if err != nil {
		return
	}
	sessions.Claim(resumed, holder)
	c.RenewedBy(c.Principal())
	_ = []any{auth.Reader{}, auth.Writer{}, auth.Context{}, auth.Principal{}, auth.Resumption{}, journal.Record{}} // refused when they are used
`

// forgotten are ways to do without the check, each with what all of the
// compiler's answers have in common.
var forgotten = []struct{ code, answer string }{
	// What a client said, in each form that it comes in, is no right to read,
	{`h.Subscribe(ctx, stated, from, nil)`, `cannot use stated (variable of struct type twinrail.Routing) as auth.Reader value`},
	{`h.Subscribe(ctx, address, from, nil)`, `cannot use address (variable of struct type twinrail.Address) as auth.Reader value`},
	{`h.Subscribe(ctx, address.Home, from, nil)`, `as auth.Reader value`},
	{`h.Subscribe(ctx, address.Key(), from, nil)`, `as auth.Reader value`},
	{`log.Read(ctx, address, 0, 1)`, `as auth.Reader value`},
	{`log.Read(ctx, stated.CanvasID, 0, 1)`, `as auth.Reader value`},
	{`log.Bounds(ctx, stated)`, `as auth.Reader value`},
	{`log.Seek(ctx, address, cursor)`, `as auth.Reader value`},
	{`people.Members(address, presence.Position{}, 1)`, `as auth.Reader value`},
	{`people.Watch(stated, nil, "", 1)`, `as auth.Reader value`},
	// nor to write,
	{`journal.NewRecord(stated, event)`, `as auth.Writer value`},
	{`journal.NewRecord(address, event)`, `as auth.Writer value`},
	{`h.Gesture(address, event)`, `as auth.Writer value`},
	{`here.Enter(address, "", nil)`, `as auth.Writer value`},
	// and who it is, is neither.
	{`h.Subscribe(ctx, c, from, nil)`, `cannot use c (variable of type *auth.Context) as auth.Reader value`},
	{`h.Subscribe(ctx, c.Routing(), from, nil)`, `as auth.Reader value`},
	{`h.Subscribe(ctx, c.Principal(), from, nil)`, `as auth.Reader value`},
	{`log.Read(ctx, id, 0, 1)`, `as auth.Reader value`},
	{`journal.NewRecord(c, event)`, `as auth.Writer value`},
	// The right to write is not that to read, nor the other way round.
	{`h.Subscribe(ctx, writer, from, nil)`, `cannot use writer (variable of struct type auth.Writer) as auth.Reader value`},
	{`people.Members(writer, presence.Position{}, 1)`, `as auth.Reader value`},
	{`journal.NewRecord(reader, event)`, `cannot use reader (variable of struct type auth.Reader) as auth.Writer value`},
	{`h.Gesture(reader, event)`, `as auth.Writer value`},
	{`here.Enter(reader, "", nil)`, `as auth.Writer value`},
	{`_ = auth.Reader(writer)`, `cannot convert writer (variable of struct type auth.Writer) to type auth.Reader`},
	{`_ = auth.Writer(reader)`, `cannot convert reader (variable of struct type auth.Reader) to type auth.Writer`},
	// The answer to the check cannot be passed over on the way.
	{`h.Subscribe(ctx, c.Reader(stated, twinrail.CanvasStream, 0), from, nil)`, `multiple-value c.Reader`},
	{`journal.NewRecord(c.Writer(stated, twinrail.Commit), event)`, `multiple-value c.Writer`},

	// Nobody else makes a right, or a context, or changes one.
	{`_ = auth.Reader{home: address.Home}`, `cannot refer to unexported field home in struct literal of type auth.Reader`},
	{`_ = auth.Reader{address.Home, address.Home.Key(), address.Audience, "u_1", 1}`, `in struct literal of type auth.Reader`},
	{`_ = auth.Reader(address)`, `cannot convert address`},
	{`_ = auth.Reader(struct { home twinrail.Home; key string; audience twinrail.Audience; actor string; channels twinrail.ChannelSet }{})`, `cannot convert`},
	{`reader.home = address.Home`, `reader.home undefined`},
	{`reader.key = ""`, `reader.key undefined`},
	{`reader.audience = address.Audience`, `reader.audience undefined`},
	{`reader.actor = id.ActorID`, `reader.actor undefined`},
	{`reader.channels |= 1`, `reader.channels undefined`},
	{`_ = auth.Writer{address: address}`, `cannot refer to unexported field address in struct literal of type auth.Writer`},
	{`_ = auth.Writer(address)`, `cannot convert address`},
	{`writer.address = address`, `writer.address undefined`},
	{`writer.actor = id.ActorID`, `writer.actor undefined`},
	{`writer.channel = twinrail.Commit`, `writer.channel undefined`},
	{`_ = auth.Context{routing: stated}`, `cannot refer to unexported field routing in struct literal of type auth.Context`},
	{`_ = auth.Context(stated)`, `cannot convert stated`},
	{`c.principal = nil`, `c.principal undefined`},
	{`c.routing = stated`, `c.routing undefined`},
	{`_ = auth.Principal{identity: id}`, `cannot refer to unexported field identity in struct literal of type auth.Principal`},
	{`_ = auth.Principal{id}`, `in struct literal of type auth.Principal`},
	{`_ = auth.Principal(id)`, `cannot convert id`},
	{`c.Principal().identity = id`, `c.Principal().identity undefined`},

	// What is appended was made of a right, and is what it was made.
	{`log.Append(ctx, []journal.Record{{Owner: address.Home.Key()}}, expect)`, `unknown field Owner in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{{stored: kept.Stored}}, expect)`, `cannot refer to unexported field stored in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{{kept.Stored}}, expect)`, `implicit assignment to unexported field stored in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{kept.Stored}, expect)`, `cannot use kept.Stored`},
	{`log.Append(ctx, []journal.Record{journal.Record(kept.Stored)}, expect)`, `cannot convert kept.Stored`},
	{`log.Append(ctx, []journal.Stored{{Owner: address.Home.Key()}}, expect)`, `as []journal.Record value`},
	{`log.Append(ctx, []twinrail.Event{event}, expect)`, `as []journal.Record value`},
	{`record.stored.Owner = address.Home.Key()`, `record.stored undefined`},
	{`record.Audience = twinrail.Audience{}`, `record.Audience undefined`},
	{`record.Stored().Owner = ""`, `cannot assign to record.Stored().Owner`},

	// What is a tenant's is changed by a request of its own.
	{`flags.Set(id, "", twinrail.FlagRequest{})`, `as *auth.Context value`},
	{`gate.Revoke(id, twinrail.RevocationRequest{})`, `as *auth.Context value`},
	{`gate.IssueTicket(c.Principal(), twinrail.TicketRequest{})`, `as *auth.Context value`},
	{`gate.OpenResume(id, "")`, `as *auth.Context value`},
	{`c.RenewedBy(id)`, `as *auth.Principal value`},

	// What a client says of its session is no right to have it.
	{`sessions.Claim("s_1", holder)`, `as auth.Resumption value`},
	{`sessions.Claim(auth.Resume{SessionID: "s_1"}, holder)`, `as auth.Resumption value`},
	{`sessions.Claim(c, holder)`, `as auth.Resumption value`},
	{`sessions.Claim(gate.OpenResume(c, ""), holder)`, `multiple-value gate.OpenResume`},
	{`_ = auth.Resumption{said: auth.Resume{SessionID: "s_1"}}`, `cannot refer to unexported field said in struct literal of type auth.Resumption`},
	{`_ = auth.Resumption{auth.Resume{SessionID: "s_1"}}`, `in struct literal of type auth.Resumption`},
	{`_ = auth.Resumption(auth.Resume{SessionID: "s_1"})`, `cannot convert`},
	{`resumption.said.SessionID = "s_1"`, `resumption.said undefined`},
}

// TestForgottenCheck compiles what somebody might write who forgets.
func TestForgottenCheck(t *testing.T) {
	c := compile(t, "./internal/...")
	if errs := c.check(t, fmt.Sprintf(elsewhere, theRightWay)); len(errs) > 0 {
		t.Fatalf("the right way does not compile: %q", errs)
	}
	for _, f := range forgotten {
		errs := c.check(t, fmt.Sprintf(elsewhere, f.code))
		other := slices.ContainsFunc(errs, func(e string) bool { return !strings.Contains(e, f.answer) })
		if len(errs) == 0 || other {
			t.Errorf("%s\nis answered %q\nwant        %q", f.code, errs, f.answer)
		}
	}
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
