package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"

	"github.com/twinrail/twinrail/internal/auth"
)

// secretEnv may hold the secret itself. It is no flag, so that no process list
// and no shell history shows it.
const secretEnv = "TWINRAIL_AUTH_HMAC_SECRET"

// issuer says whose tokens are accepted.
type issuer struct {
	HMACSecretFile string   `name:"hmac-secret-file" help:"File with the secret of HS256, HS384 and HS512 tokens; or the secret itself in the environment: TWINRAIL_AUTH_HMAC_SECRET." placeholder:"FILE"`
	PublicKeyFile  []string `name:"public-key-file" help:"PEM file with public keys or certificates of RS, PS, ES and EdDSA tokens; may be repeated." placeholder:"FILE"`
	JWKSURL        []string `name:"jwks-url" help:"URL of a JSON Web Key Set; may be repeated." placeholder:"URL"`
	Issuer         string   `name:"issuer" help:"What a token's iss must be." placeholder:"ISS"`
	Audience       []string `name:"audience" help:"What a token's aud must hold; with several, one of them." placeholder:"AUD"`
}

func (i *issuer) check() error {
	if i.HMACSecretFile != "" && os.Getenv(secretEnv) != "" {
		return fmt.Errorf("--auth-hmac-secret-file: %s is set too: leave one out", secretEnv)
	}
	for _, s := range i.JWKSURL {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return fmt.Errorf("--auth-jwks-url: %q must begin with https:// or http://", s)
		}
	}
	return nil
}

// configured reports whether there is an issuer.
func (i *issuer) configured() bool {
	return i.HMACSecretFile != "" || os.Getenv(secretEnv) != "" || len(i.PublicKeyFile) > 0 || len(i.JWKSURL) > 0
}

// verifier returns the verifier of what is configured, or else of the
// development key in the data directory.
func (c *serveCmd) verifier(log *slog.Logger) (*auth.Verifier, error) {
	o := auth.VerifierOptions{Envs: c.Env, Issuer: c.Issuer, Audiences: c.Audience, JWKS: c.JWKSURL, Logger: log}
	if c.configured() {
		keys, err := c.keys()
		if err != nil {
			return nil, usageError(err)
		}
		o.Keys = keys
	} else {
		if c.Issuer != "" || len(c.Audience) > 0 {
			return nil, usageError(errors.New("--auth-issuer and --auth-audience: without a secret, key or JWKS URL there is no issuer to expect"))
		}
		key, err := auth.LoadOrCreateKey(c.Data, auth.KeyFile)
		if err != nil {
			return nil, err
		}
		o.Keys = []auth.Key{{Material: key}}
		log.Warn("no issuer is configured: only tokens made by twinrail token from the key in the data directory are accepted", "data", c.Data)
	}
	v, err := auth.NewVerifier(o)
	if err != nil {
		return nil, usageError(err)
	}
	return v, nil
}

// keys reads the keys that are configured. Its errors name the flag and the
// file, and nothing of a secret.
func (i *issuer) keys() ([]auth.Key, error) {
	var keys []auth.Key
	secret, from := []byte(os.Getenv(secretEnv)), secretEnv
	if i.HMACSecretFile != "" {
		var err error
		from = "--auth-hmac-secret-file"
		if secret, err = readSecret(i.HMACSecretFile); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	if i.HMACSecretFile != "" || len(secret) > 0 {
		if len(secret) < auth.MinSecret {
			return nil, fmt.Errorf("%s: a secret has at least %d bytes, this one %d", from, auth.MinSecret, len(secret))
		}
		keys = append(keys, auth.Key{Material: secret})
	}
	for _, path := range i.PublicKeyFile {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--auth-public-key-file: %w", err)
		}
		parsed, err := auth.ParsePublicKeys(text)
		if err != nil {
			return nil, fmt.Errorf("--auth-public-key-file: %s: %w", path, err)
		}
		keys = append(keys, parsed...)
	}
	return keys, nil
}

// readSecret reads a file that holds an HMAC secret. The end of its line is the
// editor's, not the secret's.
func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	return bytes.TrimRight(text, "\r\n"), err
}
