package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

// full states every key but the actor.
func full() twinrail.Routing {
	return twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a",
		SurfaceID: "s", CanvasID: "c", ProjectionID: "j", PanelID: "l", ThreadID: "t",
	}
}

func granting(grants ...twinrail.Grant) *Principal {
	id := someone()
	id.Grants = grants
	return &Principal{identity: id}
}

// enter is Enter for a context that states tenant and env only.
func enter(t *testing.T, p *Principal) *Context {
	t.Helper()
	c, err := p.Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "r-1", "00-parent")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnter(t *testing.T) {
	p := granting()
	for _, k := range twinrail.Keys() {
		stated := full()
		stated.ActorID = "u_1"
		if c, err := p.Enter(stated, "r-1", "00-parent"); err != nil || c.Routing() != stated {
			t.Fatalf("all well: %v, %v", c, err)
		}

		stated.Set(k, "-x")
		_, err := p.Enter(stated, "", "")
		wantError(t, err, twinrail.CodeContextInvalid, k.String())

		stated.Set(k, "t_other")
		want := twinrail.Code("")
		switch k {
		case twinrail.KeyTenant, twinrail.KeyEnv:
			want = twinrail.CodeContextMismatch
		case twinrail.KeyActor:
			want = twinrail.CodeActorMismatch
		}
		_, err = p.Enter(stated, "", "")
		wantError(t, err, want, k.String())

		stated.Set(k, "")
		want = ""
		if k == twinrail.KeyTenant || k == twinrail.KeyEnv {
			want = twinrail.CodeContextMissing
		}
		_, err = p.Enter(stated, "", "")
		wantError(t, err, want, k.String())
	}
}

// grantKeys are the keys that a grant may mention, with their place in it.
var grantKeys = []struct {
	key twinrail.Key
	in  func(*twinrail.Grant) *string
}{
	{twinrail.KeyWorkspace, func(g *twinrail.Grant) *string { return &g.WorkspaceID }},
	{twinrail.KeyProject, func(g *twinrail.Grant) *string { return &g.ProjectID }},
	{twinrail.KeyApp, func(g *twinrail.Grant) *string { return &g.AppID }},
	{twinrail.KeySurface, func(g *twinrail.Grant) *string { return &g.SurfaceID }},
	{twinrail.KeyCanvas, func(g *twinrail.Grant) *string { return &g.CanvasID }},
	{twinrail.KeyProjection, func(g *twinrail.Grant) *string { return &g.ProjectionID }},
	{twinrail.KeyPanel, func(g *twinrail.Grant) *string { return &g.PanelID }},
	{twinrail.KeyThread, func(g *twinrail.Grant) *string { return &g.ThreadID }},
}

func isHome(k twinrail.Key, kind twinrail.Kind) bool {
	switch k {
	case twinrail.KeyWorkspace, twinrail.KeyProject, twinrail.KeyApp:
		return true
	case twinrail.KeyCanvas:
		return kind == twinrail.CanvasStream
	case twinrail.KeyThread:
		return kind == twinrail.ThreadStream
	}
	return false
}

// TestAuthorizedAddress has one key at a time differ, in the grant and in what
// is asked for, with all others the same in both.
func TestAuthorizedAddress(t *testing.T) {
	channels := map[twinrail.Kind][]twinrail.Channel{
		twinrail.CanvasStream: {twinrail.Commit, twinrail.Artifact, twinrail.Gesture, twinrail.Presence},
		twinrail.ThreadStream: {twinrail.Chat, twinrail.Tool, twinrail.Presence},
	}
	for kind, channels := range channels {
		for _, gk := range grantKeys {
			same := full().Get(gk.key)
			for _, granted := range []string{same, "other", "*", ""} {
				for _, asked := range []string{same, "elsewhere", ""} {
					grant := twinrail.Grant{Can: []string{"*"}}
					for _, each := range grantKeys {
						*each.in(&grant) = full().Get(each.key)
					}
					*gk.in(&grant) = granted
					stated := full()
					stated.Set(gk.key, asked)

					home := isHome(gk.key, kind)
					want, field := twinrail.Code(""), ""
					switch {
					case home && asked == "":
						want, field = twinrail.CodeContextMissing, gk.key.String()
					case granted == "*", granted == asked && asked != "", !home && granted == "":
					default:
						want = twinrail.CodeNotFound
					}
					name := fmt.Sprintf("%s: %s granted %q asked %q", kind, gk.key, granted, asked)
					t.Run(name, func(t *testing.T) {
						c := enter(t, granting(grant))
						for _, channel := range channels {
							wantAuthorized(t, c, stated, kind, channel, want, field)
						}
					})
				}
			}
		}
	}
}

// wantAuthorized asks for reading and, where that can be, writing.
func wantAuthorized(t *testing.T, c *Context, stated twinrail.Routing, kind twinrail.Kind, channel twinrail.Channel, want twinrail.Code, field string) {
	t.Helper()
	r, err := c.Reader(stated, kind, twinrail.ChannelsOf(channel))
	wantError(t, err, want, field)
	if err != nil && r != (Reader{}) {
		t.Errorf("a Reader in spite of %v", err)
	}
	if channel == twinrail.Presence {
		_, err := c.Writer(stated, channel)
		wantError(t, err, twinrail.CodeBadRequest, "channel")
		return
	}
	w, werr := c.Writer(stated, channel)
	wantError(t, werr, want, field)
	if werr != nil && w != (Writer{}) {
		t.Errorf("a Writer in spite of %v", werr)
	}
	if err != nil || werr != nil {
		return
	}
	address, err := stated.Address(kind)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Valid() || r.Home() != address.Home || r.Key() != address.Home.Key() || r.audience != address.Audience || r.actor != "u_1" ||
		r.Channels() != twinrail.ChannelsOf(channel) {
		t.Errorf("the Reader is %+v", r)
	}
	if w.Address() != address || w.Key() != address.Home.Key() || w.Channel() != channel {
		t.Errorf("the Writer is %+v", w)
	}
}

// TestAuthorizedChannel says what each permission lets its holder do.
func TestAuthorizedChannel(t *testing.T) {
	const read, write = twinrail.Read, twinrail.Write
	all := []twinrail.Channel{"commit", "artifact", "gesture", "chat", "tool", "presence"}
	permissions := []string{"*", twinrail.PermissionRevoke, ""}
	for _, channel := range all {
		for _, right := range []string{"read", "write", "*"} {
			permissions = append(permissions, string(channel)+":"+right)
		}
	}
	for _, permission := range permissions {
		grant := FullGrant()
		grant.Can = []string{permission}
		c := enter(t, granting(grant))
		holds := func(channel twinrail.Channel, right twinrail.Right) bool {
			return permission == "*" || permission == string(channel)+":*" || permission == fmt.Sprintf("%s:%s", channel, right)
		}
		for _, channel := range all {
			for _, kind := range []twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream} {
				want := twinrail.CodeNotFound
				if holds(channel, read) && channel.In(kind) {
					want = ""
				}
				_, err := c.Reader(full(), kind, twinrail.ChannelsOf(channel))
				wantError(t, err, want, "")
			}
			if channel == twinrail.Presence {
				continue
			}
			want := twinrail.CodeNotFound
			if holds(channel, write) {
				want = ""
			}
			_, err := c.Writer(full(), channel)
			wantError(t, err, want, "")
		}
	}
	for _, channel := range []twinrail.Channel{"", "commits", "*"} {
		_, err := enter(t, granting(FullGrant())).Writer(full(), channel)
		wantError(t, err, twinrail.CodeBadRequest, "channel")
	}
}

func TestReaderOfSeveralChannels(t *testing.T) {
	here, elsewhere := FullGrant(), FullGrant()
	here.Can = []string{"commit:read", "artifact:write"}
	elsewhere.CanvasID, elsewhere.Can = "other", []string{"*"}
	c := enter(t, granting(elsewhere, here))
	set := twinrail.ChannelsOf
	tests := []struct {
		want twinrail.ChannelSet
		any  twinrail.ChannelSet // what ReaderOfAny gives, 0 for not_found
		all  bool                // whether Reader gives want
	}{
		{want: set("commit"), any: set("commit"), all: true},
		{want: set("commit", "artifact"), any: set("commit")},
		{want: set("commit", "chat"), any: set("commit")},
		{want: set("artifact", "gesture")},
		{want: set("chat")},
		{want: 0},
	}
	for _, tt := range tests {
		code := func(ok bool) twinrail.Code {
			if ok {
				return ""
			}
			return twinrail.CodeNotFound
		}
		r, err := c.ReaderOfAny(full(), twinrail.CanvasStream, tt.want)
		wantError(t, err, code(tt.any != 0), "")
		if r.Channels() != tt.any {
			t.Errorf("%v: got %v", tt.want.Channels(), r.Channels().Channels())
		}
		r, err = c.Reader(full(), twinrail.CanvasStream, tt.want)
		wantError(t, err, code(tt.all), "")
		if tt.all && r.Channels() != tt.want {
			t.Errorf("%v: got %v", tt.want.Channels(), r.Channels().Channels())
		}
	}
}

// TestKeysInAFrame states keys once in the request and once in a frame.
func TestKeysInAFrame(t *testing.T) {
	id := someone()
	c, err := (&Principal{identity: id}).Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w", PanelID: "l"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	frame := twinrail.Routing{ProjectID: "p", AppID: "a", CanvasID: "c", SurfaceID: "s"}
	r, err := c.Reader(frame, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
	if err != nil {
		t.Fatal(err)
	}
	wantHome := twinrail.Home{Kind: twinrail.CanvasStream, TenantID: "t_acme", Env: "dev", WorkspaceID: "w", ProjectID: "p", AppID: "a", ID: "c"}
	if r.Home() != wantHome || r.audience != (twinrail.Audience{SurfaceID: "s", PanelID: "l"}) {
		t.Errorf("got %+v", r)
	}
	tests := []struct {
		key   twinrail.Key
		value string
		code  twinrail.Code
	}{
		{twinrail.KeyTenant, "t_acme", ""},
		{twinrail.KeyTenant, "t_other", twinrail.CodeContextMismatch},
		{twinrail.KeyTenant, "other", twinrail.CodeContextInvalid},
		{twinrail.KeyEnv, "dev", ""},
		{twinrail.KeyEnv, "prod", twinrail.CodeContextMismatch},
		{twinrail.KeyActor, "u_1", ""},
		{twinrail.KeyActor, "u_2", twinrail.CodeActorMismatch},
		{twinrail.KeyWorkspace, "w", ""},
		{twinrail.KeyWorkspace, "w2", twinrail.CodeContextConflict},
		{twinrail.KeyPanel, "l2", twinrail.CodeContextConflict},
		{twinrail.KeyPanel, "*", twinrail.CodeContextInvalid},
		{twinrail.KeyCanvas, "c/../d", twinrail.CodeContextInvalid},
	}
	for _, tt := range tests {
		stated := frame
		stated.Set(tt.key, tt.value)
		_, err := c.Reader(stated, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
		wantError(t, err, tt.code, tt.key.String())
		_, err = c.Writer(stated, twinrail.Commit)
		wantError(t, err, tt.code, tt.key.String())
	}
}

func TestAdmits(t *testing.T) {
	c := enter(t, granting(FullGrant()))
	stated := full()
	stated.ProjectionID = ""
	r, err := c.Reader(stated, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit, twinrail.Gesture))
	if err != nil {
		t.Fatal(err)
	}
	own := r.Home().Key()
	type audience = twinrail.Audience
	tests := []struct {
		name     string
		owner    string
		channel  twinrail.Channel
		audience audience
		to       []string
		want     bool
	}{
		{"for all", own, twinrail.Commit, audience{}, nil, true},
		{"the other channel", own, twinrail.Gesture, audience{}, nil, true},
		{"a channel that it does not read", own, twinrail.Artifact, audience{}, nil, false},
		{"no channel", own, "", audience{}, nil, false},
		{"another stream", strings.Replace(own, "/c/", "/c2/", 1), twinrail.Commit, audience{}, nil, false},
		{"another tenant", strings.Replace(own, "t_acme", "t_other", 1), twinrail.Commit, audience{}, nil, false},
		{"the thread of the same name", "t" + own[1:], twinrail.Commit, audience{}, nil, false},
		{"no stream", "", twinrail.Commit, audience{}, nil, false},
		{"its surface", own, twinrail.Commit, audience{SurfaceID: "s"}, nil, true},
		{"its panel", own, twinrail.Commit, audience{PanelID: "l"}, nil, true},
		{"its thread", own, twinrail.Commit, audience{ThreadID: "t"}, nil, true},
		{"all that it holds", own, twinrail.Commit, audience{SurfaceID: "s", PanelID: "l", ThreadID: "t"}, nil, true},
		{"another surface", own, twinrail.Commit, audience{SurfaceID: "s2"}, nil, false},
		{"a projection, of which it holds none", own, twinrail.Commit, audience{ProjectionID: "j"}, nil, false},
		{"another panel", own, twinrail.Commit, audience{SurfaceID: "s", PanelID: "l2"}, nil, false},
		{"another thread", own, twinrail.Commit, audience{ThreadID: "t2"}, nil, false},
		{"to it", own, twinrail.Commit, audience{}, []string{"u_1"}, true},
		{"to it and another", own, twinrail.Commit, audience{}, []string{"u_2", "u_1"}, true},
		{"to another", own, twinrail.Commit, audience{}, []string{"u_2"}, false},
		{"to nobody in particular", own, twinrail.Commit, audience{}, []string{}, true},
		{"to it, on another panel", own, twinrail.Commit, audience{PanelID: "l2"}, []string{"u_1"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Admits(tt.owner, tt.channel, tt.audience, tt.to); got != tt.want {
				t.Errorf("got %t", got)
			}
			if got, want := r.Owns(tt.owner), tt.owner == own; got != want {
				t.Errorf("Owns gives %t", got)
			}
			if (Reader{}).Admits(tt.owner, tt.channel, tt.audience, tt.to) {
				t.Error("the zero Reader admits it")
			}
		})
	}
	if (Reader{}).Valid() || (Reader{}).Owns("") {
		t.Error("the zero Reader owns something")
	}
}

func TestStamp(t *testing.T) {
	w, err := enter(t, granting(FullGrant())).Writer(full(), twinrail.Chat)
	if err != nil {
		t.Fatal(err)
	}
	e := twinrail.Event{
		ID: "e1", Type: "x", To: []string{"u_9"}, Channel: twinrail.Commit, ActorType: twinrail.System,
		Routing: twinrail.Routing{TenantID: "t_other", ActorID: "u_2"}, RequestID: "forged", Traceparent: "forged",
	}
	w.Stamp(&e)
	routing := full()
	routing.ActorID = "u_1"
	if e.Channel != twinrail.Chat || e.ActorType != twinrail.Human || e.Routing != routing || e.RequestID != "r-1" || e.Traceparent != "00-parent" {
		t.Errorf("got %+v", e)
	}
	if e.ID != "e1" || e.Type != "x" || !slices.Equal(e.To, []string{"u_9"}) {
		t.Errorf("it changed what is the publisher's: %+v", e)
	}
}
