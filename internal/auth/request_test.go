package auth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
)

// wantError fails unless err has the code, "" for none, and field.
func wantError(t *testing.T, err error, code twinrail.Code, field string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("got %v", err)
		}
		return
	}
	var e *twinrail.Error
	if !errors.As(err, &e) || e.Code != code || e.Field != field {
		t.Errorf("got %v, want %s about %q", err, code, field)
	}
}

// request returns a GET of target with headers given as "Name: value".
func request(target string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestCredential(t *testing.T) {
	const (
		missing = twinrail.CodeCredentialMissing
		upgrade = "Upgrade: websocket"
	)
	tests := []struct {
		name    string
		target  string
		headers []string
		want    string // the token, or
		code    twinrail.Code
	}{
		{"nothing", "/", nil, "", missing},
		{"a header", "/", []string{"Authorization: Bearer a.b.c"}, "a.b.c", ""},
		{"a scheme in lower case", "/", []string{"Authorization: bearer a.b.c"}, "a.b.c", ""},
		{"more spaces", "/", []string{"Authorization: BEARER   a.b.c"}, "a.b.c", ""},
		{"another scheme", "/", []string{"Authorization: Basic a.b.c"}, "", refused},
		{"no scheme", "/", []string{"Authorization: a.b.c"}, "", refused},
		{"no token", "/", []string{"Authorization: Bearer"}, "", refused},
		{"an empty token", "/", []string{"Authorization: Bearer  "}, "", refused},
		{"an empty header", "/", []string{"Authorization: "}, "", refused},
		{"two headers", "/", []string{"Authorization: Bearer a.b.c", "Authorization: Bearer d.e.f"}, "", refused},
		{"one header twice", "/", []string{"Authorization: Bearer a.b.c", "Authorization: Bearer a.b.c"}, "", refused},
		{"another scheme beside it", "/", []string{"Authorization: Bearer a.b.c", "Authorization: Basic x"}, "", refused},
		{"a query", "/?access_token=a.b.c&token=a.b.c&jwt=a.b.c&bearer=a.b.c&authorization=Bearer+a.b.c", nil, "", missing},
		{"a query beside a header", "/?access_token=d.e.f", []string{"Authorization: Bearer a.b.c"}, "a.b.c", ""},
		{"a cookie", "/", []string{"Cookie: token=a.b.c"}, "", missing},

		{"a subprotocol", "/", []string{upgrade, "Sec-WebSocket-Protocol: twinrail.v1, bearer.a.b.c"}, "a.b.c", ""},
		{"a subprotocol first", "/", []string{"Upgrade: WebSocket", "Sec-WebSocket-Protocol: bearer.a.b.c,twinrail.v1"}, "a.b.c", ""},
		{"a subprotocol in a header of its own", "/", []string{upgrade, "Sec-WebSocket-Protocol: twinrail.v1", "Sec-WebSocket-Protocol: bearer.a.b.c"}, "a.b.c", ""},
		{"no such subprotocol", "/", []string{upgrade, "Sec-WebSocket-Protocol: twinrail.v1"}, "", missing},
		{"an empty one", "/", []string{upgrade, "Sec-WebSocket-Protocol: twinrail.v1, bearer."}, "", refused},
		{"one of another case", "/", []string{upgrade, "Sec-WebSocket-Protocol: Bearer.a.b.c"}, "", missing},
		{"two", "/", []string{upgrade, "Sec-WebSocket-Protocol: bearer.a.b.c, bearer.d.e.f"}, "", refused},
		{"one twice", "/", []string{upgrade, "Sec-WebSocket-Protocol: bearer.a.b.c", "Sec-WebSocket-Protocol: bearer.a.b.c"}, "", refused},
		{"not an upgrade", "/", []string{"Sec-WebSocket-Protocol: twinrail.v1, bearer.a.b.c"}, "", missing},
		{"an upgrade to something else", "/", []string{"Upgrade: h2c", "Sec-WebSocket-Protocol: bearer.a.b.c"}, "", missing},
		{"both, the same", "/", []string{upgrade, "Authorization: Bearer a.b.c", "Sec-WebSocket-Protocol: bearer.a.b.c"}, "a.b.c", ""},
		{"both, different", "/", []string{upgrade, "Authorization: Bearer a.b.c", "Sec-WebSocket-Protocol: bearer.d.e.f"}, "", refused},
		{"a bad header beside it", "/", []string{upgrade, "Authorization: Basic x", "Sec-WebSocket-Protocol: bearer.a.b.c"}, "", refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Credential(request(tt.target, tt.headers...))
			wantError(t, err, tt.code, "")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "a.b.c") || strings.Contains(err.Error(), "d.e.f")) {
				t.Errorf("the answer %q repeats the token", err)
			}
		})
	}
}

func TestStatedRoutingOfEachKey(t *testing.T) {
	const conflict, empty = twinrail.CodeContextConflict, twinrail.CodeContextInvalid
	tests := []struct {
		name          string
		header, query []string
		want          string
		code          twinrail.Code
	}{
		{"not given", nil, nil, "", ""},
		{"a header", []string{"a"}, nil, "a", ""},
		{"a query", nil, []string{"a"}, "a", ""},
		{"both", []string{"a"}, []string{"a"}, "a", ""},
		{"a header twice", []string{"a", "a"}, nil, "a", ""},
		{"a query twice", nil, []string{"a", "a"}, "a", ""},
		{"header against header", []string{"a", "b"}, nil, "", conflict},
		{"header against query", []string{"a"}, []string{"b"}, "", conflict},
		{"query against query", nil, []string{"a", "b"}, "", conflict},
		{"header against the second query", []string{"a"}, []string{"a", "b"}, "", conflict},
		{"cases differ", []string{"a"}, []string{"A"}, "", conflict},
		{"an empty header", []string{""}, nil, "", empty},
		{"an empty query", nil, []string{""}, "", empty},
		{"an empty header beside a query", []string{""}, []string{"a"}, "", empty},
		{"an empty query beside a header", []string{"a"}, []string{""}, "", empty},
		{"not well formed is for later", []string{"a, b"}, nil, "a, b", ""},
	}
	for _, k := range twinrail.Keys() {
		for _, tt := range tests {
			t.Run(k.String()+" "+tt.name, func(t *testing.T) {
				r := request("/?" + url.Values{k.String(): tt.query, "other": {"x"}}.Encode())
				r.Header[k.Header()] = tt.header
				got, err := StatedRouting(r)
				wantError(t, err, tt.code, k.String())
				var want twinrail.Routing
				want.Set(k, tt.want)
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		}
	}
}

func TestStatedRoutingTogether(t *testing.T) {
	r := request("/?workspace_id=w1&project_id=p1&Env=prod", "x-tenant-id: t_acme", "X-ENV: dev", "X-Panel-Id: l1")
	got, err := StatedRouting(r)
	want := twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", PanelID: "l1"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, query := range []string{"env=dev;tenant_id=t_a", "env=%zz", "a=%", "%=1", "x=1;", "env=dev&;"} {
		r := request("/")
		r.URL.RawQuery = query
		_, err := StatedRouting(r)
		wantError(t, err, twinrail.CodeBadRequest, "query")
	}
}

func TestStatedRoutingOfThePath(t *testing.T) {
	tests := []struct {
		target string
		want   string
		code   twinrail.Code
	}{
		{"/canvases/c1", "c1", ""},
		{"/canvases/c1?canvas_id=c1", "c1", ""},
		{"/canvases/c1?canvas_id=c2", "", twinrail.CodeContextConflict},
	}
	for _, tt := range tests {
		var got twinrail.Routing
		var err error
		mux := http.NewServeMux()
		mux.HandleFunc("/canvases/{canvas_id}", func(_ http.ResponseWriter, r *http.Request) { got, err = StatedRouting(r) })
		mux.ServeHTTP(httptest.NewRecorder(), request(tt.target))
		wantError(t, err, tt.code, "canvas_id")
		if got.CanvasID != tt.want {
			t.Errorf("%s: got %q", tt.target, got.CanvasID)
		}
	}
}

// TestAdmitOrder makes requests that are wrong in several ways at once, and
// wants the first in the order of the checks.
func TestAdmitOrder(t *testing.T) {
	v := secretVerifier(t)
	good := "Authorization: Bearer " + signHS(t, validClaims())
	forged := good[:len(good)-4] + "AAAA"
	old := "Authorization: Bearer " + signHS(t, with(validClaims(), "exp", 1))
	const (
		acme, other = "X-Tenant-Id: t_acme", "X-Tenant-Id: t_other"
		prod, dev   = "X-Env: prod", "X-Env: dev"
		malformed   = "X-Panel-Id: a b"
	)
	tests := []struct {
		name    string
		query   string
		headers []string
		code    twinrail.Code
		field   string
	}{
		{"no credential before a malformed query", "%zz", []string{other}, twinrail.CodeCredentialMissing, ""},
		{"a forged one before a malformed query", "%zz", []string{forged, other}, refused, ""},
		{"a forged one before a missing context", "", []string{forged}, refused, ""},
		{"an expired one before a conflict", "env=dev", []string{old, acme, prod}, expired, ""},
		{"a malformed query before a missing tenant", "%zz", []string{good}, twinrail.CodeBadRequest, "query"},
		{"a conflict before the wrong tenant", "env=dev", []string{good, other, prod}, twinrail.CodeContextConflict, "env"},
		{"no tenant before a malformed key", "", []string{good, malformed}, twinrail.CodeContextMissing, "tenant_id"},
		{"no env before the wrong tenant", "", []string{good, other}, twinrail.CodeContextMissing, "env"},
		{"no env before a malformed key", "", []string{good, acme, malformed}, twinrail.CodeContextMissing, "env"},
		{"a malformed key before the wrong tenant", "", []string{good, other, prod, malformed}, twinrail.CodeContextInvalid, "panel_id"},
		{"a malformed tenant is no other tenant", "", []string{good, "X-Tenant-Id: other", dev}, twinrail.CodeContextInvalid, "tenant_id"},
		{"the wrong tenant before the wrong env", "", []string{good, other, dev}, twinrail.CodeContextMismatch, "tenant_id"},
		{"the wrong env before the wrong actor", "actor_id=u_1", []string{good, acme, dev}, twinrail.CodeContextMismatch, "env"},
		{"the wrong actor", "actor_id=u_1", []string{good, acme, prod}, twinrail.CodeActorMismatch, "actor_id"},
		{"nothing wrong, with headers", "actor_id=u_42", []string{good, acme, prod}, "", ""},
		{"nothing wrong, with a query", "tenant_id=t_acme&env=prod", []string{good}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request("/", tt.headers...)
			r.URL.RawQuery = tt.query
			c, err := newGate(t, GateOptions{Verifier: v}).Admit(r)
			wantError(t, err, tt.code, tt.field)
			if (c == nil) != (err != nil) {
				t.Errorf("got %v with %v", c, err)
			}
		})
	}
}

func TestAdmitContext(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r := request("/?canvas_id=c1", "Authorization: Bearer "+signHS(t, validClaims()), "X-Tenant-Id: t_acme", "X-Env: prod",
		"X-Request-Id: r-1", "Traceparent: "+parent)
	c, err := newGate(t, GateOptions{}).Admit(r)
	if err != nil {
		t.Fatal(err)
	}
	want := twinrail.Routing{TenantID: "t_acme", Env: "prod", CanvasID: "c1"}
	if c.Routing() != want || c.RequestID() != "r-1" || c.Traceparent() != parent || c.Principal().Identity().ActorID != "u_42" {
		t.Errorf("got %+v", c)
	}
}

func TestRequestID(t *testing.T) {
	for _, id := range []string{"x", "a-b_c.d:e/f+g=", strings.Repeat("a", 128)} {
		if got := RequestID(request("/", "X-Request-Id: "+id)); got != id {
			t.Errorf("%q became %q", id, got)
		}
	}
	for _, ids := range [][]string{
		nil, {""}, {"a b"}, {"a\tb"}, {"a\nb"}, {"\x7f"}, {`a"b`}, {"a'b"}, {`a\b`}, {"é"}, {strings.Repeat("a", 129)}, {"a", "b"},
	} {
		r := request("/")
		r.Header["X-Request-Id"] = ids
		got := RequestID(r)
		if id, err := uuid.Parse(got); err != nil || id.Version() != 7 {
			t.Errorf("%q became %q", ids, got)
		}
		if again := RequestID(r); again != got {
			t.Errorf("%q became %q and then %q", ids, got, again)
		}
	}
}

func TestTraceparent(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	const ids = trace + "-" + parent
	taken := map[string]string{
		"00-" + ids + "-00":        "00-" + ids + "-00",
		"00-" + ids + "-01":        "00-" + ids + "-01",
		"00-" + ids + "-ff":        "00-" + ids + "-ff",
		"01-" + ids + "-01":        "00-" + ids + "-01",
		"cc-" + ids + "-0a-and-so": "00-" + ids + "-00",
		"cc-" + ids + "-ff-":       "00-" + ids + "-01",
	}
	for in, want := range taken {
		if got := Traceparent(request("/", "traceparent: "+in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	zero := strings.Repeat("0", 32)
	for _, in := range [][]string{
		nil, {""}, {"00"}, {"00-" + ids}, {"ff-" + ids + "-01"}, {"0-" + ids + "-01"}, {"0g-" + ids + "-01"},
		{"00-" + ids + "-01-x"}, {"00-" + ids + "-01x"}, {"cc-" + ids + "-01x"}, {"00-" + ids + "-0"}, {"00-" + ids + "-0x"},
		{"00-" + strings.ToUpper(trace) + "-" + parent + "-01"}, {"00-" + trace + "-" + strings.ToUpper(parent) + "-01"},
		{"00-" + ids + "-0A"}, {"00-" + zero + "-" + parent + "-01"}, {"00-" + trace + "-" + zero[:16] + "-01"},
		{"00_" + ids + "-01"}, {"00-" + trace + "_" + parent + "-01"}, {"00-" + ids + "_01"},
		{"00-" + ids + "-01", "00-" + ids + "-01"},
	} {
		r := request("/")
		r.Header["Traceparent"] = in
		got := Traceparent(r)
		if made, ok := parseTraceparent(got); !ok || made != got || !strings.HasPrefix(got, "00-") || !strings.HasSuffix(got, "-00") {
			t.Errorf("%q became %q", in, got)
		}
		if strings.Contains(got, trace) || strings.Contains(got, parent) {
			t.Errorf("%q became %q, which takes a part of it", in, got)
		}
		if again := Traceparent(r); again != got {
			t.Errorf("%q became %q and then %q", in, got, again)
		}
	}
}

// FuzzStatedRouting states one key in a header and in a raw query, and compares
// with what the standard library makes of the query.
func FuzzStatedRouting(f *testing.F) {
	f.Add(0, "t_acme", "tenant_id=t_acme")
	f.Add(1, "dev", "env=prod&env=dev")
	f.Add(6, "", "canvas_id=%41&canvas_id=")
	f.Add(10, "u_1", "actor_id=u_1;x=1")
	f.Fuzz(func(t *testing.T, index int, header, query string) {
		keys := twinrail.Keys()
		k := keys[uint(index)%uint(len(keys))]
		r := request("/")
		r.Header[k.Header()] = []string{header}
		r.URL.RawQuery = query
		got, err := StatedRouting(r)
		values, bad := url.ParseQuery(query)
		if bad != nil {
			wantError(t, err, twinrail.CodeBadRequest, "query")
			return
		}
		if err != nil {
			if code := twinrail.CodeOf(err); code != twinrail.CodeContextConflict && code != twinrail.CodeContextInvalid {
				t.Error(err)
			}
			return
		}
		if got.Get(k) != header || header == "" {
			t.Errorf("the header %q became %q", header, got.Get(k))
		}
		for _, other := range keys {
			for _, v := range values[other.String()] {
				if got.Get(other) != v {
					t.Errorf("%s is %q and was taken as %q", other, v, got.Get(other))
				}
			}
		}
	})
}
