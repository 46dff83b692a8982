package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// remote is what the commands that talk to a server have in common.
type remote struct {
	URL    string `name:"url" help:"The server's URL." default:"http://127.0.0.1:8080"`
	Token  string `help:"The credential, a JWT. Better given in the environment: others can see a command line." required:"" placeholder:"JWT"`
	Tenant string `help:"The tenant to act in. Default the token's." placeholder:"T"`
	Env    string `help:"The environment to act in. Default the token's." placeholder:"ENV"`
}

// dial returns a client of the server, with these options and the server's URL and
// token, and the tenant and env of the context that every request states.
func (r *remote) dial(o client.Options) (*client.Client, twinrail.Routing, error) {
	routing := twinrail.Routing{TenantID: r.Tenant, Env: r.Env}
	if r.Tenant == "" || r.Env == "" {
		claims, err := readClaims(r.Token)
		if err != nil {
			return nil, routing, usageError(fmt.Errorf("--token: %w", err), "with a token of another kind, give --tenant and --env")
		}
		if r.Tenant == "" {
			routing.TenantID = claims.TenantID
		}
		if r.Env == "" {
			routing.Env = claims.Env
		}
	}
	o.URL, o.Token = r.URL, r.Token
	c, err := client.New(o)
	if err != nil {
		return nil, routing, usageError(fmt.Errorf("--url: %w", err))
	}
	return c, routing, nil
}

// claims are those of a token that say where it is valid.
type claims struct {
	TenantID string `json:"tenant_id"`
	Env      string `json:"env"`
}

// readClaims decodes a token without verifying it: the server does that, and a
// context that is not the token's is refused there.
func readClaims(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return c, errors.New("is not a JWT")
	}
	if c.TenantID == "" || c.Env == "" {
		return c, errors.New("names no tenant and env")
	}
	return c, nil
}
