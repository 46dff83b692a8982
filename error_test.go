package twinrail_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/twinrail/twinrail"
)

// declaredCodes returns the values of the constants of type Code in error.go.
func declaredCodes(t *testing.T) map[twinrail.Code]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "error.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[twinrail.Code]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		for i, name := range spec.Names {
			value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if other, twice := codes[twinrail.Code(value)]; twice {
				t.Errorf("%s and %s are both %q", other, name.Name, value)
			}
			codes[twinrail.Code(value)] = name.Name
		}
		return true
	})
	return codes
}

func TestCodeTable(t *testing.T) {
	table, declared := twinrail.Codes(), declaredCodes(t)
	if len(declared) < 20 {
		t.Fatalf("found only %d codes in the source", len(declared))
	}
	for code, name := range declared {
		if _, ok := table[code]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
	titles := map[string]twinrail.Code{}
	for code, info := range table {
		if _, ok := declared[code]; !ok {
			t.Errorf("%q is in the table and has no constant", code)
		}
		if info.Title == "" || titles[info.Title] != "" {
			t.Errorf("the title of %q is empty, or that of %q too: %q", code, titles[info.Title], info.Title)
		}
		titles[info.Title] = code
		if info.Status < 400 || info.Status > 599 {
			t.Errorf("the status of %q is %d", code, info.Status)
		}
		want := map[twinrail.Action]twinrail.Retry{
			twinrail.ActionStop: twinrail.RetryNever, twinrail.ActionBackoff: twinrail.RetryBackoff,
			twinrail.ActionResume: twinrail.RetryBackoff, twinrail.ActionRefresh: twinrail.RetryRefresh,
		}[twinrail.CloseAction(info.Close)]
		if info.Retry != want {
			t.Errorf("%q says retry %s and closes with %d, after which a client's retry is %s", code, info.Retry, info.Close, want)
		}
	}
	table[twinrail.CodeInternal] = twinrail.CodeInfo{}
	if twinrail.CodeInternal.Info().Status != 500 {
		t.Error("a caller changed the table")
	}
	if got := twinrail.Code("never_heard_of").Info(); got != twinrail.CodeInternal.Info() {
		t.Errorf("an unknown code is %+v", got)
	}
}

// TestStatusAndCloseCodes holds the table against the statuses and close codes
// that the protocol names.
func TestStatusAndCloseCodes(t *testing.T) {
	tests := []struct {
		code   twinrail.Code
		status int
		close  int
	}{
		{"credential_missing", 401, 4300},
		{"credential_invalid", 401, 4300},
		{"credential_expired", 401, 4300},
		{"credential_revoked", 401, 4010},
		{"context_missing", 400, 4000},
		{"context_invalid", 400, 4000},
		{"context_conflict", 400, 4000},
		{"context_mismatch", 403, 4003},
		{"actor_mismatch", 403, 4003},
		{"rail_disabled", 403, 4014},
		{"not_found", 404, 4003},
		{"bad_frame", 400, 4000},
		{"wrong_rail", 400, 4000},
		{"id_conflict", 409, 4000},
		{"seq_conflict", 409, 4000},
		{"cursor_expired", 410, 4000},
		{"cursor_unknown", 410, 4000},
		{"too_large", 413, 4013},
		{"rate_limited", 429, 4100},
		{"limit_exceeded", 429, 4100},
		{"heartbeat_lost", 408, 4200},
		{"too_slow", 408, 4201},
		{"overloaded", 503, 4101},
		{"draining", 503, 4202},
		{"unavailable", 503, 1011},
		{"internal", 500, 1011},
	}
	table := twinrail.Codes()
	for _, tt := range tests {
		if info, ok := table[tt.code]; !ok || info.Status != tt.status || info.Close != tt.close {
			t.Errorf("%s is %+v, %t; want status %d, close %d", tt.code, info, ok, tt.status, tt.close)
		}
	}
}

func TestCloseAction(t *testing.T) {
	for want, codes := range map[twinrail.Action][]int{
		twinrail.ActionStop:    {4000, 4003, 4009, 4010, 4013, 4014, 4050, 4099, 1002, 1003, 1007, 1008, 1009, 1010},
		twinrail.ActionBackoff: {4100, 4101, 4150, 4199, 1011},
		twinrail.ActionResume:  {4200, 4201, 4202, 4250, 4299, 1000, 1001, 1005, 1006, 1012, 0, 3999, 4400, 5000},
		twinrail.ActionRefresh: {4300, 4350, 4399},
	} {
		for _, code := range codes {
			if got := twinrail.CloseAction(code); got != want {
				t.Errorf("after %d a client does %s, want %s", code, got, want)
			}
		}
	}
}

func TestError(t *testing.T) {
	err := error(twinrail.Errorf(twinrail.CodeContextInvalid, "panel_id", "not %s", "good"))
	wrapped := fmt.Errorf("while joining: %w", err)
	if got := err.Error(); got != "context_invalid: panel_id: not good" {
		t.Errorf("got %q", got)
	}
	if got := (&twinrail.Error{Code: twinrail.CodeNotFound}).Error(); got != "not_found" {
		t.Errorf("got %q", got)
	}
	if !errors.Is(wrapped, &twinrail.Error{Code: twinrail.CodeContextInvalid}) {
		t.Error("an error is not of its own code")
	}
	if errors.Is(wrapped, &twinrail.Error{Code: twinrail.CodeNotFound}) ||
		errors.Is(wrapped, &twinrail.Error{Code: twinrail.CodeContextInvalid, Field: "env"}) {
		t.Error("an error is of another code, or about another field")
	}
	if twinrail.CodeOf(wrapped) != twinrail.CodeContextInvalid || twinrail.CodeOf(errors.New("x")) != twinrail.CodeInternal {
		t.Errorf("the codes are %s and %s", twinrail.CodeOf(wrapped), twinrail.CodeOf(errors.New("x")))
	}
	wantError(t, twinrail.InField("routing", wrapped), twinrail.CodeContextInvalid, "routing.panel_id")
	wantError(t, twinrail.InField("channels", &twinrail.Error{Code: twinrail.CodeBadFrame}), twinrail.CodeBadFrame, "channels")
	wantError(t, err, twinrail.CodeContextInvalid, "panel_id") // unchanged
	if plain := errors.New("x"); twinrail.InField("routing", plain) != plain {
		t.Error("an error of another type was changed")
	}
}
