package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// The forms of contract sections 2 and 3, as a reader of that would write them.
var (
	keyForm    = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z`)
	tenantForm = regexp.MustCompile(`\At_[a-z0-9_-]{1,62}\z`)
	canForm    = regexp.MustCompile(`\A(\*|session:revoke|(commit|artifact|gesture|chat|tool|presence):(read|write|\*))\z`)
)

// plainJSON returns what text says if it is one JSON object in UTF-8 in which no
// object has a name twice, whatever the nesting.
func plainJSON(text []byte) (map[string]any, bool) {
	var object map[string]any
	if !utf8.Valid(text) || !json.Valid(text) || plainDecoder(text).Decode(&object) != nil || object == nil {
		return nil, false
	}
	return object, uniqueNames(plainDecoder(text)) == nil
}

// plainDecoder keeps numbers as they are: some have no other type.
func plainDecoder(text []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d
}

// uniqueNames reads one value, and fails on an object that has a name twice.
func uniqueNames(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, _ := token.(json.Delim)
	if open != '{' && open != '[' {
		return nil
	}
	seen := make(map[string]bool)
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if seen[name.(string)] {
				return fmt.Errorf("%q twice", name)
			}
			seen[name.(string)] = true
		}
		if err := uniqueNames(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// plainGrant returns the grant that object is, if it is one.
func plainGrant(object map[string]any) (twinrail.Grant, bool) {
	var g twinrail.Grant
	for name, value := range object {
		if name == "can" {
			list, ok := value.([]any)
			if !ok || len(list) > 32 {
				return g, false
			}
			for _, each := range list {
				can, ok := each.(string)
				if !ok || !canForm.MatchString(can) {
					return g, false
				}
				g.Can = append(g.Can, can)
			}
			continue
		}
		text, ok := value.(string)
		if !ok || text != "*" && !keyForm.MatchString(text) {
			return g, false
		}
		known := false
		for _, k := range grantKeys {
			if k.key.String() == name {
				known, *k.in(&g) = true, text
			}
		}
		if !known {
			return g, false
		}
	}
	return g, len(g.Can) > 0
}

// forge returns a token of the payload, with a signature that is right.
func forge(t testing.TB, header, payload string) string {
	t.Helper()
	segment := base64.RawURLEncoding.EncodeToString
	text := segment([]byte(header)) + "." + segment([]byte(payload))
	signature, err := jwt.SigningMethodHS256.Sign(text, secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + segment(signature)
}

const plainHeader = `{"alg":"HS256"}`

// checkClaims has an issuer sign the payload, whatever it is: what comes of it is
// exactly what it says, read plainly, or a refusal with a code of its own.
func checkClaims(t testing.TB, v *Verifier, payload string) error {
	t.Helper()
	p, err := v.Verify(context.Background(), forge(t, plainHeader, payload))
	if err != nil {
		if code := twinrail.CodeOf(err); code != refused && code != expired {
			t.Errorf("%q: %v", payload, err)
		}
		return err
	}
	object, ok := plainJSON([]byte(payload))
	if !ok {
		t.Errorf("accepted, and is no plain JSON: %q", payload)
		return nil
	}
	id := p.Identity()
	text := func(name, missing string) string {
		if value, ok := object[name].(string); ok && value != "" || object[name] != nil {
			return value
		}
		return missing
	}
	number := func(name string) float64 {
		text, _ := object[name].(json.Number)
		value, err := text.Float64()
		if err != nil && object[name] != nil {
			t.Errorf("accepted with %s %v", name, object[name])
		}
		return value
	}
	said := []string{text("sub", ""), text("tenant_id", ""), text("env", ""), text("role", "member"), text("actor_type", "human"), text("jti", "")}
	took := []string{id.ActorID, id.TenantID, id.Env, string(id.Role), string(id.ActorType), id.TokenID}
	for i := range said {
		// An empty role or type is as good as none.
		if said[i] != took[i] && (said[i] != "" || i != 3 && i != 4) {
			t.Errorf("says %q and was taken as %q", said, took)
		}
	}
	if !keyForm.MatchString(id.ActorID) || !tenantForm.MatchString(id.TenantID) || !slices.Contains(DefaultEnvs(), id.Env) {
		t.Errorf("accepted: %q in %q and %q", id.ActorID, id.TenantID, id.Env)
	}
	at := float64(time.Now().UnixNano()) / 1e9
	if exp := number("exp"); exp <= at-1 || object["exp"] == nil || id.ExpiresAt.Before(time.Now().Add(-time.Second)) {
		t.Errorf("accepted at %f until %f, as %v", at, exp, id.ExpiresAt)
	}
	if nbf := number("nbf"); nbf > at || nbf < 0 || number("iat") < 0 {
		t.Errorf("accepted at %f from %f", at, nbf)
	}
	list, _ := object["grants"].([]any)
	if object["grants"] != nil && list == nil || len(list) != len(id.Grants) {
		t.Errorf("%v was taken as %v", object["grants"], id.Grants)
		return nil
	}
	for i, raw := range list {
		grant, _ := raw.(map[string]any)
		if want, ok := plainGrant(grant); !ok || fmt.Sprint(want) != fmt.Sprint(id.Grants[i]) {
			t.Errorf("grant %v was taken as %+v", raw, id.Grants[i])
		}
	}
	return nil
}

// FuzzClaims signs any payload with the right key: an issuer that can be made to
// sign what it should not is no way to more than the payload says.
func FuzzClaims(f *testing.F) {
	v := secretVerifier(f)
	const ends = `"exp":4000000000`
	for _, payload := range []string{
		`{"sub":"u_1","tenant_id":"t_a","env":"dev",` + ends + `}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev","exp":4e9,"nbf":0,"iat":1.5,"role":"owner","actor_type":"agent","jti":"j","aud":["x"],"iss":"y"}`,
		`{"sub":"u_1","tenant_id":"t_a","tenant_id":"t_b","env":"dev",` + ends + `}`,
		`{"sub":"u_1","ten\u0061nt_id":"t_a","tenant_id":"t_b","env":"dev",` + ends + `}`,
		`{"sub":"u_1","tenant_id":"t_a\u0000","env":"dev",` + ends + `}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev",` + ends + `,"x":{"a":1,"a":2}}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev",` + ends + `,"x":1e400,"nbf":1e-400}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev",` + ends + `,"grants":[{"workspace_id":"*","project_id":"a","app_id":"b","canvas_id":"c","panel_id":"l","can":["commit:read","*"]}]}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev",` + ends + `,"grants":[{"workspace_id":"","can":["*:read"]}]}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev","exp":1e308,"role":null,"grants":null}`,
		`{"sub":"u_1","tenant_id":"t_a","env":"dev","exp":"4000000000","nbf":-1}`,
		"\ufeff{}", `null`, `[]`, `"a.b.c"`, `{"sub":"\ud800"}`,
	} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) { _ = checkClaims(t, v, payload) })
}

// FuzzGrant reads any text as a grant, and asks it for one right at one address of
// a, b, A and nothing: it gives what the table in the contract gives, and is
// refused where it says anything else.
func FuzzGrant(f *testing.F) {
	for i, text := range []string{
		`{"workspace_id":"a","project_id":"*","app_id":"b","canvas_id":"a","can":["commit:read","gesture:*"]}`,
		`{"workspace_id":"a","project_id":"a","app_id":"a","thread_id":"*","panel_id":"a","can":["chat:write"]}`,
		`{"workspace_id":"*","project_id":"*","app_id":"*","canvas_id":"*","thread_id":"*","can":["*"]}`,
		`{"workspace_id":"*","project_id":"*","app_id":"*","surface_id":"A","projection_id":"*","can":["presence:*","session:revoke"]}`,
		`{"workspace_id":"a*","can":["commit:*:x"]}`, `{"workspace_id":" *","can":["*:*"]}`, `{"can":[]}`,
		`{"c\u0061n":["*"],"can":["*"]}`, `{"panel_id":null,"can":["tool:read"]}`, `{"tenant_id":"t_acme","can":["*"]}`,
	} {
		f.Add(text, uint16(0x5555)>>i, uint8(i))
	}
	channels := []twinrail.Channel{"commit", "artifact", "gesture", "chat", "tool", "presence"}
	f.Fuzz(func(t *testing.T, text string, address uint16, pick uint8) {
		got, err := ParseGrant([]byte(text))
		object, plain := plainJSON([]byte(text))
		want, ok := plainGrant(object)
		if ok = ok && plain; ok != (err == nil) || ok && fmt.Sprint(got) != fmt.Sprint(want) {
			// The parser refuses half a surrogate pair, which here becomes a character
			// that is in no form either.
			t.Fatalf("%q: %+v, %v; want %+v, %t", text, got, err, want, ok)
		}
		if err != nil {
			return
		}
		asked := twinrail.Routing{TenantID: "t_acme", Env: "dev"}
		for i, k := range grantKeys {
			asked.Set(k.key, []string{"", "a", "b", "A"}[address>>(2*i)&3])
		}
		channel, right := channels[int(pick)%len(channels)], twinrail.Read
		if pick&0x80 != 0 {
			right = twinrail.Write
		}
		kind := twinrail.CanvasStream
		if !channel.In(kind) || channel == twinrail.Presence && pick&0x40 != 0 {
			kind = twinrail.ThreadStream
		}
		c, err := granting(got).Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if right == twinrail.Read {
			_, err = c.Reader(asked, kind, twinrail.ChannelsOf(channel))
		} else {
			_, err = c.writer(asked, kind, channel)
		}
		if may := gives(object, asked, kind, channel, right); may != (err == nil) {
			t.Errorf("%s gives %s:%s at %+v: %v, want %t", text, channel, right, asked, err, may)
		}
	})
}

// gives is what the contract says of a grant, said again.
func gives(grant map[string]any, asked twinrail.Routing, kind twinrail.Kind, channel twinrail.Channel, right twinrail.Right) bool {
	allowed := false
	for _, can := range grant["can"].([]any) {
		allowed = allowed || can == "*" || can == string(channel)+":*" || can == fmt.Sprintf("%s:%s", channel, right)
	}
	for _, k := range grantKeys {
		value, mentioned := grant[k.key.String()]
		at := asked.Get(k.key)
		if isHome(k.key, kind) && (!mentioned || at == "") {
			return false
		}
		if mentioned && value != "*" && value != at {
			return false
		}
	}
	return allowed
}
