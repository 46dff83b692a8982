package auth

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
)

func someone() twinrail.Identity {
	return twinrail.Identity{
		ActorID: "u_1", ActorType: twinrail.Human, TenantID: "t_acme", Env: "dev", Role: twinrail.Member,
		Grants: []twinrail.Grant{FullGrant()},
	}
}

func TestMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		raw, err := Mint(secret, someone(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		v := secretVerifier(t)
		p, err := v.Verify(context.Background(), raw)
		if err != nil {
			t.Fatal(err)
		}
		id := p.Identity()
		tokenID, err := uuid.Parse(id.TokenID)
		if err != nil || tokenID.Version() != 7 {
			t.Errorf("jti is %q", id.TokenID)
		}
		if !id.IssuedAt.Equal(start) || !id.ExpiresAt.Equal(start.Add(time.Hour)) {
			t.Errorf("from %v to %v", id.IssuedAt, id.ExpiresAt)
		}
		if id.ActorID != "u_1" || id.TenantID != "t_acme" || id.Env != "dev" || len(id.Grants) != 1 {
			t.Errorf("got %+v", id)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		wantCode(t, v, raw, accepted)
		time.Sleep(time.Nanosecond)
		wantCode(t, v, raw, expired)

		time.Sleep(time.Second / 2)
		raw, err = Mint(secret, someone(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantCode(t, v, raw, accepted) // rounded up
		time.Sleep(time.Second / 2)
		wantCode(t, v, raw, expired)
	})
}

func TestMintRefuses(t *testing.T) {
	change := func(f func(*twinrail.Identity)) twinrail.Identity {
		id := someone()
		f(&id)
		return id
	}
	for want, id := range map[string]twinrail.Identity{
		"sub":             change(func(id *twinrail.Identity) { id.ActorID = "" }),
		"actor_type":      change(func(id *twinrail.Identity) { id.ActorType = "robot" }),
		"tenant_id":       change(func(id *twinrail.Identity) { id.TenantID = "acme" }),
		"env":             change(func(id *twinrail.Identity) { id.Env = "a b" }),
		"role":            change(func(id *twinrail.Identity) { id.Role = "" }),
		"jti":             change(func(id *twinrail.Identity) { id.TokenID = strings.Repeat("j", maxTokenID+1) }),
		"too many grants": change(func(id *twinrail.Identity) { id.Grants = make([]twinrail.Grant, maxGrants+1) }),
	} {
		if raw, err := Mint(secret, id, time.Hour); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, %v; want an error with %q", raw, err, want)
		}
	}
	if _, err := Mint(secret[:31], someone(), time.Hour); err == nil || !strings.Contains(err.Error(), "32 bytes") {
		t.Errorf("a short key: %v", err)
	}
	if _, err := Mint(secret, someone(), 0); err == nil {
		t.Error("minted a token that is never valid")
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	key, err := LoadOrCreateKey(dir, KeyFile)
	if err != nil || len(key) != MinSecret || bytes.Equal(key, make([]byte, MinSecret)) {
		t.Fatalf("got %x, %v", key, err)
	}
	again, err := LoadOrCreateKey(dir, KeyFile)
	if err != nil || !bytes.Equal(again, key) {
		t.Errorf("the second time %v, another key: %t", err, !bytes.Equal(again, key))
	}
	other, err := LoadOrCreateKey(t.TempDir(), KeyFile)
	if err != nil || bytes.Equal(other, key) {
		t.Errorf("elsewhere %v, the same key: %t", err, bytes.Equal(other, key))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != KeyFile {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, KeyFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}

func TestLoadOrCreateKeyByName(t *testing.T) {
	dir := t.TempDir()
	keys := make(map[string]bool)
	for range 2 {
		for _, name := range []string{KeyFile, SessionKeyFile} {
			key, err := LoadOrCreateKey(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			keys[string(key)] = true
			if stored, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(stored, key) {
				t.Errorf("%s holds another key: %v", name, err)
			}
		}
	}
	if len(keys) != 2 {
		t.Errorf("two names have %d keys", len(keys))
	}
}

func TestLoadOrCreateKeyAtOnce(t *testing.T) {
	dir := t.TempDir()
	keys := make([][]byte, 16)
	var group sync.WaitGroup
	for i := range keys {
		group.Go(func() {
			key, err := LoadOrCreateKey(dir, KeyFile)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	group.Wait()
	for _, key := range keys {
		if !bytes.Equal(key, keys[0]) {
			t.Fatalf("several keys: %x", keys)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

func TestLoadOrCreateKeyRefuses(t *testing.T) {
	tests := []struct {
		name    string
		content []byte
		mode    os.FileMode
		want    string
	}{
		{"readable by the group", secret, 0o640, "chmod 600"},
		{"readable by others", secret, 0o604, "chmod 600"},
		{"writable by others", secret, 0o602, "chmod 600"},
		{"empty", nil, 0o600, "damaged"},
		{"short", secret[:31], 0o600, "damaged"},
		{"long", append(secret[:32:32], 'x'), 0o600, "damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), KeyFile)
			if err := os.WriteFile(path, tt.content, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrCreateKey(filepath.Dir(path), KeyFile); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, tt.content) {
				t.Errorf("the file was changed: %x, %v", content, err)
			}
		})
	}
	if _, err := LoadOrCreateKey(filepath.Join(os.DevNull, "x"), KeyFile); err == nil {
		t.Error("made a key where no directory can be")
	}
}
