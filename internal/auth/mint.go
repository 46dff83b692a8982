package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
)

// The names of keys within the data directory: what the tokens of twinrail token
// are signed with, and what resume tokens are.
const (
	KeyFile        = "development.key"
	SessionKeyFile = "session.key"
)

// LoadOrCreateKey returns the key of that name in a data directory, MinSecret
// random bytes, and makes directory and key where there are none yet. It
// refuses a key that others than its owner may read or write. Of several
// processes that make one at the same time all get the same.
func LoadOrCreateKey(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := createKey(dir, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make %s: %w", name, err)
	}
	return loadKey(path)
}

func loadKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s can be used by others (mode %04o): run chmod 600 on it, or remove it to have a new one made", path, mode)
	}
	key, err := io.ReadAll(io.LimitReader(f, MinSecret+1))
	if err != nil {
		return nil, err
	}
	if len(key) != MinSecret {
		return nil, fmt.Errorf("%s is damaged: a key has %d bytes; remove it to have a new one made", path, MinSecret)
	}
	return key, nil
}

// createKey makes a key under another name and links it to its own once it is
// whole and on disk, so that nobody ever reads a part of it. It fails with
// fs.ErrExist where there is one meanwhile.
func createKey(dir, name string) (err error) {
	f, err := os.CreateTemp(dir, name+".*") // O_EXCL, mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if removed := os.Remove(f.Name()); err == nil {
			err = removed
		}
	}()
	key := make([]byte, MinSecret)
	rand.Read(key) // never fails
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Link(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Mint returns a token for id that is valid for ttl, rounded up to the second,
// signed with HS256 and key. It runs from id.IssuedAt, or from now where that is
// zero; id.ExpiresAt is not used. An id.TokenID that is "" becomes a UUIDv7. What a [Verifier] would
// refuse, an unknown env apart, is an error that names the claim.
func Mint(key []byte, id twinrail.Identity, ttl time.Duration) (string, error) {
	if _, err := pin(Key{Material: key}); err != nil {
		return "", err
	}
	if ttl <= 0 {
		return "", errors.New("a token must be valid for some time")
	}
	if id.TokenID == "" {
		tokenID, err := uuid.NewV7()
		if err != nil {
			return "", err
		}
		id.TokenID = tokenID.String()
	}
	if id.IssuedAt.IsZero() {
		id.IssuedAt = time.Now()
	}
	if name := badMember(id, nil); name != "" {
		return "", fmt.Errorf("not a valid %s", name)
	}
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub":        id.ActorID,
		"actor_type": id.ActorType,
		"tenant_id":  id.TenantID,
		"env":        id.Env,
		"role":       id.Role,
		"jti":        id.TokenID,
		"iat":        id.IssuedAt.Unix(),
		"exp":        id.IssuedAt.Add(ttl + time.Second - time.Nanosecond).Unix(),
		"grants":     id.Grants,
	}).SignedString(key)
	if err != nil {
		return "", err
	}
	if len(raw) > MaxToken || len(id.Grants) > maxGrants {
		return "", fmt.Errorf("too many grants: the token has %d bytes, more than %d", len(raw), MaxToken)
	}
	return raw, nil
}
