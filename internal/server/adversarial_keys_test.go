package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// The forms of contract section 2.
var (
	keyForm    = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z`)
	tenantForm = regexp.MustCompile(`\At_[a-z0-9_-]{1,62}\z`)
)

// whereCanary is where the canary is: all eleven keys are named.
var whereCanary = twinrail.Routing{
	TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", SurfaceID: "s1",
	CanvasID: "c1", ProjectionID: "j1", PanelID: "l1", ThreadID: "th1", ActorID: "u_1",
}

// newCanary returns a server with one event that whoever states these keys sees.
func newCanary(t testing.TB) *direct {
	d := newDirect(t, func(o *Options) { o.FrameRate = -1 })
	routing, _ := json.Marshal(whereCanary)
	d.publish(publishPath, d.token, `{"channel":"commit","type":"t","to":["u_1"],"routing":`+string(routing)+`,"data":"canary"}`)
	return d
}

// stating asks for the stream of whereCanary with key k stated otherwise, in a
// header or in the query, and the others as they are.
func (d *direct) stating(k twinrail.Key, v string, inHeader bool) reply {
	r := d.request("GET", twinrail.PathHistory+"?channels=commit", "", "", as(d.token))
	for _, other := range twinrail.Keys() {
		if other != k {
			r.Header.Set(other.Header(), whereCanary.Get(other))
		}
	}
	if inHeader {
		r.Header[k.Header()] = []string{v}
	} else {
		r.URL.RawQuery += "&" + k.String() + "=" + url.QueryEscape(v)
	}
	return d.ask(r)
}

// wantStated returns the code of an answer to somebody who states v for k, where
// the canary has another value.
func wantStated(k twinrail.Key, v string) twinrail.Code {
	form := keyForm
	if k == twinrail.KeyTenant {
		form = tenantForm
	}
	switch {
	case !form.MatchString(v) && v == "" && (k == twinrail.KeyTenant || k == twinrail.KeyEnv):
		return twinrail.CodeContextInvalid
	case !form.MatchString(v):
		return twinrail.CodeContextInvalid
	case k == twinrail.KeyTenant, k == twinrail.KeyEnv:
		return twinrail.CodeContextMismatch
	case k == twinrail.KeyActor:
		return twinrail.CodeActorMismatch
	}
	return ""
}

// odds returns what v may be mistaken for: with each byte in each position, with
// characters that look alike, too long, and in encodings that somebody may undo.
func odds(v string) (all []string) {
	for b := range 256 {
		c := string([]byte{byte(b)})
		all = append(all, c, c+v, v+c, v[:1]+c+v[1:])
	}
	wide := func(r rune) rune { return r + 0xfee0 } // the full-width forms
	all = append(all,
		"", v+v, strings.ToUpper(v), strings.Map(wide, v), "\u200b"+v, v+"\u200d", v+"\u0301", "\ufeff"+v, v+"\u202e", v+"\u00ad",
		strings.Replace(v, "1", "\u0661", 1), strings.Replace(v, "1", "l", 1), strings.Replace(v, "c", "\u0441", 1), strings.Replace(v, "s", "\u017f", 1),
		strings.Replace(v, "_", "\u2017", 1), strings.Replace(v, "e", "e\u0301", 1), v+"\xc0\x80", "\xc1\xa3"+v[1:], v+"\xed\xa0\x80", v+"\xff\xfe",
		url.QueryEscape(v+"/"), "%63%31", "%2e%2e%2f"+v, v+"%00", v+"%", "../"+v, v+"/../"+v, v+"/.", v+","+v, v+", other", v+";"+v, v+"="+v, v+"&"+v, v+"\r\nX-Panel-Id: l2",
		"*", "**", v[:1]+"*", "?", ".*", "{canvas_id}", "$1", "null", "undefined", "true", "0", "-", "_"+v, "-"+v, `"`+v+`"`, `["`+v+`"]`, "'"+v+"'", v+"' OR '1'='1",
		strings.Repeat("a", 64), strings.Repeat("a", 65), "t_"+strings.Repeat("a", 62), "t_"+strings.Repeat("a", 63), strings.Repeat("a", 1<<16), strings.Repeat(v, 1000),
	)
	return slices.DeleteFunc(all, func(other string) bool { return other == v })
}

// TestKeysOfEveryByte states each key otherwise, over the header, the query, the
// body of a publish and a frame: it is refused by its form, or is another one.
func TestKeysOfEveryByte(t *testing.T) {
	d := newCanary(t)
	p := d.drive(twinrail.PathWS+"?tenant_id=t_acme&env=dev", d.token)
	for _, k := range twinrail.Keys() {
		right := whereCanary.Get(k)
		for _, inHeader := range []bool{true, false} {
			if got := d.stating(k, right, inHeader); !strings.Contains(string(got.body), "canary") {
				t.Fatalf("%s %q: %d %s", k, right, got.status, got.body)
			}
		}
		for _, v := range odds(right) {
			want := wantStated(k, v)
			for _, inHeader := range []bool{true, false} {
				resp := d.stating(k, v, inHeader)
				if code := codeOf(t, k.String(), resp); code != want || strings.Contains(string(resp.body), "canary") {
					t.Errorf("%s %.80q, in the header %t: %d %.200s", k, v, inHeader, resp.status, resp.body)
				}
			}
			d.stateInJSON(t, p, k, v, want)
		}
	}
	if got := d.stating(twinrail.KeyPanel, "l1", true); strings.Count(string(got.body), `"seq"`) != 1 {
		t.Errorf("something was published where the canary is: %s", got.body)
	}
}

// stateInJSON publishes with the key stated so, by a request and by a frame, and
// joins.
func (d *direct) stateInJSON(t *testing.T, p *driven, k twinrail.Key, v string, want twinrail.Code) {
	t.Helper()
	routing := whereCanary
	routing.Set(k, "@")
	b, _ := json.Marshal(routing)
	text := strings.Replace(string(b), `"@"`, quoted(v), 1)
	if v == "" { // a member that is empty is as good as one that is not there
		return
	}
	utf8 := strings.ToValidUTF8(v, "") == v
	body, frame := want, want
	if !utf8 {
		body, frame = twinrail.CodeBadRequest, twinrail.CodeBadFrame
	}
	resp := d.do("POST", twinrail.PathPublish+"?tenant_id=t_acme&env=dev", `{"events":[{"channel":"commit","type":"t","routing":`+text+`,"data":1}]}`, as(d.token))
	if code := codeOf(t, k.String(), resp); code != body {
		t.Errorf("published with %s %.80q: %q, want %q", k, v, code, body)
	}
	if code := p.code(`{"op":"publish","events":[{"channel":"chat","type":"t","routing":` + text + `,"data":1}]}`); code != frame {
		t.Errorf("published over WS with %s %.80q: %q, want %q", k, v, code, frame)
	}
	if code := p.code(`{"op":"join","sub":"s","routing":` + text + `}`); code != frame {
		t.Errorf("joined with %s %.80q: %q, want %q", k, v, code, frame)
	}
	if frame == "" {
		p.leave("s")
	}
}

// quoted writes s as a JSON string with its bytes as they are where JSON has them
// so, and never the replacement of what is no UTF-8.
func quoted(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

// TestKeyInThePath has every byte in the path, as it is and escaped: a canvas is
// found only under its own name.
func TestKeyInThePath(t *testing.T) {
	d := newCanary(t)
	ask := func(path string) reply {
		r := d.request("GET", twinrail.PathSSECanvases+"x?"+appQuery+"&on_reset=fail&cursor=x", "", "", as(d.token))
		u, err := url.ParseRequestURI(twinrail.PathSSECanvases + path)
		if err != nil {
			return reply{status: http.StatusBadRequest} // which net/http answers itself
		}
		u.RawQuery = r.URL.RawQuery
		r.URL = u
		return d.ask(r)
	}
	const found = http.StatusGone // that a stream there is, of which x is no cursor
	if resp := ask("c1"); resp.status != found {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	for _, v := range odds("c1") {
		for _, path := range []string{url.PathEscape(v), v} {
			resp := ask(path)
			name, err := url.PathUnescape(path)
			if valid := err == nil && keyForm.MatchString(name); (resp.status == found) != valid || resp.status/100 == 2 || resp.status >= 500 {
				if i := strings.IndexAny(name, "?#"); err == nil && i > 0 && keyForm.MatchString(name[:i]) && path == v {
					continue // where the path ends
				}
				t.Errorf("%.80q: %d %s", path, resp.status, resp.body)
			}
		}
	}
}

// TestKeysOnTheWire sends what no client's library does, as bytes.
func TestKeysOnTheWire(t *testing.T) {
	r := newRig(t)
	r.commits(0, 1)
	const app = "&env=dev&workspace_id=w1&project_id=p1&app_id=studio"
	for name, c := range map[string]struct {
		query, headers string
		status         int
		code           twinrail.Code
	}{
		"as it should be":             {"tenant_id=t_acme" + app + "&canvas_id=c1", "", 200, ""},
		"in both, and the same":       {"tenant_id=t_acme" + app + "&canvas_id=c1", "X-Canvas-Id: c1\r\n", 200, ""},
		"in both, different":          {"tenant_id=t_acme" + app + "&canvas_id=c1", "X-Canvas-Id: c2\r\n", 400, twinrail.CodeContextConflict},
		"the header twice":            {"tenant_id=t_acme" + app, "X-Canvas-Id: c1\r\nx-canvas-id: c1\r\n", 200, ""},
		"the header twice, different": {"tenant_id=t_acme" + app, "X-Canvas-Id: c1\r\nX-CANVAS-ID: c2\r\n", 400, twinrail.CodeContextConflict},
		"two tenants, one is ours":    {"tenant_id=t_acme" + app + "&canvas_id=c1", "X-Tenant-Id: t_other\r\n", 400, twinrail.CodeContextConflict},
		"the query twice":             {"tenant_id=t_acme" + app + "&canvas_id=c1&canvas_id=c2", "", 400, twinrail.CodeContextConflict},
		"its name in escapes":         {"tenant_id=t_acme" + app + "&canvas_id=c1&canvas%5Fid=c2", "", 400, twinrail.CodeContextConflict},
		"its value in escapes":        {"tenant_id=t_acme" + app + "&canvas_id=c1&canvas_id=%63%31", "", 200, ""},
		"its name in another case":    {"tenant_id=t_acme" + app + "&canvas_id=c1&Canvas_Id=c2&CANVAS_ID=c3", "", 200, ""},
		"only in another case":        {"tenant_id=t_acme" + app + "&Canvas_Id=c1", "", 400, twinrail.CodeContextMissing},
		"a list's name":               {"tenant_id=t_acme" + app + "&canvas_id=c1&canvas_id[]=c2&canvas_id.x=c2", "", 200, ""},
		"a plus":                      {"tenant_id=t_acme" + app + "&canvas_id=c1+", "", 400, twinrail.CodeContextInvalid},
		"a semicolon":                 {"tenant_id=t_acme" + app + "&canvas_id=c1;canvas_id=c2", "", 400, twinrail.CodeBadRequest},
		"a semicolon in front":        {"tenant_id=t_acme;" + app + "&canvas_id=c1", "", 400, twinrail.CodeBadRequest},
		"half an escape":              {"tenant_id=t_acme" + app + "&canvas_id=c1%", "", 400, twinrail.CodeBadRequest},
		"empty, and then not":         {"tenant_id=t_acme" + app + "&canvas_id=&canvas_id=c1", "", 400, twinrail.CodeContextInvalid},
		"spaces around":               {"tenant_id=t_acme" + app, "X-Canvas-Id: \t c1 \t \r\n", 200, ""},
		"a list in a header":          {"tenant_id=t_acme" + app, "X-Canvas-Id: c1, c2\r\n", 400, twinrail.CodeContextInvalid},
		"a folded header":             {"tenant_id=t_acme" + app, "X-Canvas-Id: c1\r\n c2\r\n", 400, twinrail.CodeContextInvalid},
		"a folded tenant":             {app, "X-Tenant-Id: t_acme\r\n\t_b\r\n", 400, twinrail.CodeContextInvalid},
		"a space before the colon":    {"tenant_id=t_acme" + app + "&canvas_id=c1", "X-Canvas-Id : c2\r\n", 400, ""},
		"an underscore in a name":     {"tenant_id=t_acme" + app + "&canvas_id=c1", "X_Canvas_Id: c2\r\nX-Canvas_Id: c2\r\n", 200, ""},
		"a NUL in a header":           {"tenant_id=t_acme" + app, "X-Canvas-Id: c1\x00\r\n", 400, ""},
		"a bare CR in a header":       {"tenant_id=t_acme" + app, "X-Canvas-Id: c1\rX-Panel-Id: l1\r\n", 400, ""},
		"a fragment":                  {"tenant_id=t_acme" + app + "&canvas_id=c1#x", "", 400, twinrail.CodeContextInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := r.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			_ = nc.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintf(nc, "GET %s?%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", twinrail.PathHistory, c.query, r.token, c.headers); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Code   twinrail.Code
				Events []twinrail.Event
			}
			if strings.Contains(resp.Header.Get("Content-Type"), "json") {
				_ = json.NewDecoder(resp.Body).Decode(&got)
			}
			if resp.StatusCode != c.status || got.Code != c.code || (c.status == http.StatusOK) != (len(got.Events) == 1) {
				t.Errorf("%d %+v", resp.StatusCode, got)
			}
		})
	}
}
