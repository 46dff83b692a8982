package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium with a new, empty data directory.
type browser struct {
	t     testing.TB
	stdin io.Writer

	mu      sync.Mutex
	pages   map[string]*follower
	answers map[string]chan browserLine // of the call under way on a page
}

type browserLine struct {
	Page     string          `json:"page"`
	Emitted  json.RawMessage `json:"emitted"`
	Returned json.RawMessage `json:"returned"`
	Threw    string          `json:"threw"`
}

func startBrowser(t testing.TB) *browser {
	t.Helper()
	b := &browser{t: t, pages: make(map[string]*follower), answers: make(map[string]chan browserLine)}
	b.stdin = node(t, b.take, "browser.mjs", require(t, findChromium), t.TempDir())
	return b
}

func (b *browser) take(text []byte) {
	var l browserLine
	err := json.Unmarshal(text, &l)
	b.mu.Lock()
	f, answer := b.pages[l.Page], b.answers[l.Page]
	b.mu.Unlock()
	switch {
	case err != nil || f == nil:
		b.t.Errorf("browser.mjs printed %s", text)
	case l.Emitted != nil:
		f.take(l.Emitted)
	default:
		answer <- l
	}
}

// command has the browser do something with a page, and returns the answer.
func (b *browser) command(page string, members map[string]any) (json.RawMessage, error) {
	answer := make(chan browserLine, 1)
	b.mu.Lock()
	b.answers[page] = answer
	b.mu.Unlock()
	members["page"] = page
	line, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	if _, err := b.stdin.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	select {
	case l := <-answer:
		if l.Threw != "" {
			return nil, fmt.Errorf("%s: %s", page, l.Threw)
		}
		return l.Returned, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%s: no answer after %v", page, patience)
	}
}

// open opens a page, and returns what it sees. The browser adds the headers to all
// requests of the page from then on.
func (b *browser) open(page, url string, headers http.Header) *follower {
	b.t.Helper()
	f := newFollower(page)
	b.mu.Lock()
	b.pages[page] = f
	b.mu.Unlock()
	if _, err := b.command(page, map[string]any{"open": url, "headers": flat(headers)}); err != nil {
		b.t.Fatal(err)
	}
	return f
}

// call calls a function of a page, and returns its result. Calls of one page
// come one after the other.
func (b *browser) call(page, function string, args ...any) (json.RawMessage, error) {
	return b.command(page, map[string]any{"call": function, "args": args})
}

func (b *browser) mustCall(page, function string, args ...any) json.RawMessage {
	b.t.Helper()
	result, err := b.call(page, function, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// servePages serves the folder pages, and the gate, where there is one, on an
// origin of its own, which it returns.
func servePages(t testing.TB, g *gate) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("pages")))
	mux.HandleFunc(gatePath, func(http.ResponseWriter, *http.Request) { g.stand() })
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

const gatePath = "/gate"

// pageGate returns where a page finds the gate, or "" where there is none.
func (tg target) pageGate() string {
	if tg.gate == nil {
		return ""
	}
	return gatePath
}

// followChromiumSSE follows a canvas with Chromium's native EventSource, which
// goes to the server itself, from a page of another origin, and reconnects by
// itself.
//
// A page can set no header on an EventSource. Cookies and tickets, with which it
// needs none, have tests of their own; here the browser's driver adds the
// credential to what the page sends, and all else is the browser's own.
func followChromiumSSE(t testing.TB, tg target) *follower {
	t.Helper()
	b := startBrowser(t)
	f := b.open("native EventSource", tg.origin+"/eventsource.html", credentials(tg.token))
	b.mustCall(f.name, "follow", tg.sseURL(), tg.pageGate())
	return f
}

// followChromiumWS follows a thread with Chromium's native WebSocket, which has
// the credential as a subprotocol.
func followChromiumWS(t testing.TB, tg target) *follower {
	t.Helper()
	b := startBrowser(t)
	f := b.open("native WebSocket", tg.origin+"/websocket.html", nil)
	b.mustCall(f.name, "follow", tg.wsURL(), tg.token, tg.routing, tg.pageGate())
	return f
}
