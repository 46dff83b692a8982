package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

func TestPublish(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var body []byte
		server := newFake(t,
			problem(twinrail.CodeCredentialExpired),
			func(w http.ResponseWriter, r *http.Request) {
				body, _ = io.ReadAll(r.Body)
				_, _ = fmt.Fprint(w, `{"results":[{"id":"a","seq":4,"prev":3,"cursor":"c4","time":"2026-11-23T10:00:00.000000Z"},{"id":"b","seq":5,"prev":4,"cursor":"c5","time":"2026-11-23T10:00:00.000000Z","duplicate":true}]}`)
			})
		calls, expected := 0, uint64(3)
		c := server.client(t, tokens(&calls))
		results, err := c.Publish(ctx, canvas, twinrail.PublishRequest{
			Events: []twinrail.NewEvent{
				{ID: "a", Channel: twinrail.Commit, Type: "x", Data: json.RawMessage(`{ "s": "<é>", "n": 1.0 }`)},
				{ID: "b", Channel: twinrail.Commit, Type: "x", To: []string{"u_1"}, Routing: &twinrail.Routing{PanelID: "p"}},
			},
			ExpectedSeq: &expected,
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 2 || results[0].Seq != 4 || *results[0].Prev != 3 || results[1].Cursor != "c5" || !results[1].Duplicate {
			t.Errorf("results %+v", results)
		}
		want := `{"events":[{"id":"a","channel":"commit","type":"x","data":{ "s": "<é>", "n": 1.0 }},` +
			`{"id":"b","channel":"commit","type":"x","routing":{"panel_id":"p"},"to":["u_1"],"data":null}],"expected_seq":3}`
		if string(body) != want {
			t.Errorf("sent %s\nwant %s", body, want)
		}
		requests, _ := server.seen()
		r := requests[1]
		if r.Method != http.MethodPost || r.URL.Path != "/v1/publish" || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("X-Tenant-Id") != "t_acme" || r.Header.Get("Authorization") != "Bearer token-2" {
			t.Errorf("sent %s %s with %v", r.Method, r.URL, r.Header)
		}
	})
}

func TestPublishErrors(t *testing.T) {
	one := twinrail.PublishRequest{Events: []twinrail.NewEvent{{Channel: twinrail.Commit, Type: "x", Data: json.RawMessage(`1`)}}}
	answer := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"conflict":    {problem(twinrail.CodeSeqConflict), "seq_conflict: for the test (request req-1)"},
		"no results":  {answer(`{"results":[]}`), "0 results came back for 1 events"},
		"not JSON":    {answer(`<html>`), "cannot be read"},
		"too long":    {answer(`{"x":"` + strings.Repeat("x", 1<<15) + `"}`), "MaxMessage"},
		"cut":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "no answer"},
		"refused":     {problem(twinrail.CodeCredentialInvalid), "credential_invalid"},
		"by a proxy":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nginx", http.StatusBadGateway) }, "overloaded: the server answered 502 Bad Gateway"},
		"no document": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "not_found: the server answered 403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				server := newFake(t, test.handler)
				c := server.client(t, func(o *Options) { o.MaxMessage = 1 << 14 })
				_, err := c.Publish(ctx, canvas, one)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the error is %v, want one with %q", err, test.want)
				}
			})
		})
	}
	t.Run("bad data is not sent", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			server := newFake(t, answer(`{}`))
			_, err := server.client(t).Publish(ctx, canvas, twinrail.PublishRequest{Events: []twinrail.NewEvent{{Data: json.RawMessage(`1} , {`)}}})
			wantCode(t, err, twinrail.CodeBadRequest)
			if requests, _ := server.seen(); len(requests) != 0 {
				t.Errorf("%d requests", len(requests))
			}
		})
	})
}

func TestHistory(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"events":[{"v": 1}],"next":"n","oldest":"o","head":"h"}`)
		}, problem(twinrail.CodeCursorExpired))
		c := server.client(t)
		page, err := c.History(ctx, thread, HistoryOptions{After: "c 1", Limit: 7})
		if err != nil || len(page.Events) != 1 || string(page.Events[0]) != `{"v": 1}` || page.Next != "n" || page.Oldest != "o" || page.Head != "h" {
			t.Errorf("page %+v, %v", page, err)
		}
		_, err = c.History(ctx, thread, HistoryOptions{After: twinrail.CursorEarliest})
		wantCode(t, err, twinrail.CodeCursorExpired)
		requests, _ := server.seen()
		if got := requests[0].URL.String(); got != "/v1/history?after=c+1&limit=7" || requests[0].Header.Get("X-Thread-Id") != "th1" {
			t.Errorf("asked for %s", got)
		}
		if got := requests[1].URL.String(); got != "/v1/history" {
			t.Errorf("asked for %s", got)
		}
	})
}

// A canvas with a thread as audience key is told from the thread by its channels.
func TestHistoryOfSomeChannels(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		server := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"events":[],"next":"n","oldest":"o","head":"h"}`)
		})
		routing := canvas
		routing.ThreadID = "th1"
		_, err := server.client(t).History(ctx, routing, HistoryOptions{
			Channels: []twinrail.Channel{twinrail.Commit, twinrail.Artifact}, Kinds: []string{twinrail.ArtifactPreview, twinrail.ArtifactAudit},
		})
		if err != nil {
			t.Fatal(err)
		}
		requests, _ := server.seen()
		if r := requests[0]; r.URL.String() != "/v1/history?channels=commit%2Cartifact&kinds=preview%2Caudit" ||
			r.Header.Get("X-Canvas-Id") != "c1" || r.Header.Get("X-Thread-Id") != "th1" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An application may have replaced the transport that others start from.
func TestNewWhereTheDefaultTransportIsReplaced(t *testing.T) {
	old := http.DefaultTransport
	defer func() { http.DefaultTransport = old }()
	http.DefaultTransport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("for the test") })
	c, err := New(Options{URL: "https://rt.example.com", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestNewRefusesBadOptions(t *testing.T) {
	for _, o := range []Options{
		{Token: "t"},
		{URL: "rt.example.com", Token: "t"},
		{URL: "ws://rt.example.com", Token: "t"},
		{URL: "https://", Token: "t"},
		{URL: "https://u:p@rt.example.com", Token: "t"},
		{URL: "https://rt.example.com?x=1", Token: "t"},
		{URL: "https://rt.example.com"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	c, err := New(Options{URL: "https://rt.example.com/base/", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := c.endpoint("/v1/ws", nil), "https://rt.example.com/base/v1/ws"; got != want {
		t.Errorf("the endpoint is %s, want %s", got, want)
	}
}

// A TokenSource that fails for a while is a server that fails for a while.
func TestFollowerOutlivesItsTokenSource(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		calls := 0
		server := newFake(t, sse(hang, openBlock(cursor(0))))
		c := server.client(t, func(o *Options) {
			o.Token = ""
			o.TokenSource = func(context.Context) (string, error) {
				if calls++; calls < 4 {
					return "", errors.New("the identity provider is down")
				}
				return "token", nil
			}
		})
		if _, err := collect(c.FollowCanvas(ctx, canvas, FollowOptions{}), 1); err != nil || calls != 4 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}
