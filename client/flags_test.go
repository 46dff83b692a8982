package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

// platform is the context of Tenant-0.
var platform = twinrail.Routing{TenantID: "t_0", Env: "dev"}

// record answers with body, and keeps of each request its method, path, context
// and body.
func record(requests *[]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		*requests = append(*requests, strings.Join([]string{
			r.Method, r.URL.String(), r.Header.Get("X-Tenant-Id"), r.Header.Get("X-Env"), r.Header.Get("Authorization"),
			r.Header.Get("Content-Type"), string(sent),
		}, " "))
		_, _ = io.WriteString(w, body)
	}
}

func TestFlags(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const one = `{"name":"gesture_rate","value":5,"source":"tenant0","overridable":true,"default":30,"overruled":7}`
		var sent []string
		server := newFake(t,
			problem(twinrail.CodeCredentialExpired), record(&sent, `{"flags":[`+one+`,{"name":"replay","value":true,"source":"default","overridable":false,"default":true}]}`),
			record(&sent, one), record(&sent, one), record(&sent, one))
		calls, no := 0, false
		c := server.client(t, tokens(&calls))

		flags, err := c.Flags(ctx, platform)
		if err != nil || len(flags) != 2 || flags[1].Name != "replay" || string(flags[1].Value) != "true" || flags[1].Overridable {
			t.Errorf("flags %+v, %v", flags, err)
		}
		checkFlag(t, flags[0], err)
		flag, err := c.SetFlag(ctx, platform, "gesture_rate", twinrail.FlagRequest{Value: json.RawMessage(`5`)})
		checkFlag(t, flag, err)
		flag, err = c.SetFlag(ctx, platform, "ws_enabled", twinrail.FlagRequest{Value: json.RawMessage(`true`), Overridable: &no})
		checkFlag(t, flag, err)
		flag, err = c.UnsetFlag(ctx, platform, "gesture_rate")
		checkFlag(t, flag, err)

		want := []string{
			`GET /v1/flags t_0 dev Bearer token-2  `,
			`PUT /v1/flags/gesture_rate t_0 dev Bearer token-2 application/json {"value":5}`,
			`PUT /v1/flags/ws_enabled t_0 dev Bearer token-2 application/json {"value":true,"overridable":false}`,
			`DELETE /v1/flags/gesture_rate t_0 dev Bearer token-2  `,
		}
		if got := strings.Join(sent, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("sent\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	})
}

// checkFlag checks that flag is the one of TestFlags.
func checkFlag(t *testing.T, flag twinrail.Flag, err error) {
	t.Helper()
	want := twinrail.Flag{
		Name: "gesture_rate", Value: json.RawMessage("5"), Source: twinrail.FlagFromTenant0, Overridable: true,
		Default: json.RawMessage("30"), Overruled: json.RawMessage("7"),
	}
	if fmt.Sprintf("%+v", flag) != fmt.Sprintf("%+v", want) || err != nil {
		t.Errorf("flag %+v, %v, want %+v", flag, err, want)
	}
}

// TestFlagsErrors has the server refuse each call, or say what is no answer.
func TestFlagsErrors(t *testing.T) {
	value := twinrail.FlagRequest{Value: json.RawMessage(`true`)}
	calls := map[string]func(context.Context, *Client) error{
		"list": func(ctx context.Context, c *Client) error { _, err := c.Flags(ctx, canvas); return err },
		"set": func(ctx context.Context, c *Client) error {
			_, err := c.SetFlag(ctx, canvas, "replay", value)
			return err
		},
		"unset": func(ctx context.Context, c *Client) error { _, err := c.UnsetFlag(ctx, canvas, "replay"); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t, problem(twinrail.CodeNotFound), func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
				c := server.client(t)
				wantCode(t, call(ctx, c), twinrail.CodeNotFound)
				if err := call(ctx, c); err == nil || !strings.Contains(err.Error(), "cannot be read") {
					t.Errorf("an answer that is no JSON: %v", err)
				}
			})
		})
	}
}

// TestFlagsNotSent has calls whose mistake the client finds: none is sent, as
// with such a name it would be another request.
func TestFlagsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t)
		c := server.client(t)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		for _, name := range []string{"", ".", "..", "../session", "a/b", "a?b", "a#b", "a%2fb", "Replay", "é"} {
			_, err := c.SetFlag(ctx, platform, name, twinrail.FlagRequest{Value: json.RawMessage(`true`)})
			wantBadRequest(t, err, "name")
			_, err = c.UnsetFlag(ctx, platform, name)
			wantBadRequest(t, err, "name")
		}
		for _, value := range []string{"", "yes", "true,", `true,"overridable":true`} {
			_, err := c.SetFlag(ctx, platform, "replay", twinrail.FlagRequest{Value: json.RawMessage(value)})
			wantBadRequest(t, err, "value")
		}
		if requests, _ := server.seen(); len(requests) != 0 {
			t.Errorf("%d requests", len(requests))
		}
	})
}

func wantBadRequest(t *testing.T, err error, field string) {
	t.Helper()
	wantCode(t, err, twinrail.CodeBadRequest)
	if e, ok := err.(*twinrail.Error); !ok || e.Field != field {
		t.Errorf("the error is %v, want one of the field %s", err, field)
	}
}
