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

// Mint is [Signer.Mint] with HS256 and the secret key.
func Mint(key []byte, id twinrail.Identity, ttl time.Duration) (string, error) {
	s, err := NewSigner(SignerOptions{Key: Key{Material: key}})
	if err != nil {
		return "", err
	}
	return s.Mint(id, ttl)
}
