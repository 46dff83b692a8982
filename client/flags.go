package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/twinrail/twinrail"
)

// Flags returns all flags as they are for the tenant and env of routing, which
// must be those of the credential. It takes an owner or admin; for anyone else
// the error has code not_found. So it is with [Client.SetFlag] and
// [Client.UnsetFlag].
func (c *Client) Flags(ctx context.Context, routing twinrail.Routing) ([]twinrail.Flag, error) {
	var resp twinrail.FlagsResponse
	err := c.call(ctx, http.MethodGet, c.endpoint(twinrail.PathFlags, nil), routing, nil, &resp)
	return resp.Flags, err
}

// SetFlag sets a flag for the tenant and env of routing, or for all tenants in
// the env where the tenant is Tenant-0, and returns what it is there now. The
// setting is durable then, and in effect.
//
// A flag that does not exist has code not_found too; a value that is not one of
// the flag's, and a flag that Tenant-0 does not let tenants override, have
// bad_request. An error that is not a *[ResponseError] leaves open whether the
// flag was set.
func (c *Client) SetFlag(ctx context.Context, routing twinrail.Routing, name string, req twinrail.FlagRequest) (twinrail.Flag, error) {
	var flag twinrail.Flag
	if !json.Valid(req.Value) {
		return flag, twinrail.Errorf(twinrail.CodeBadRequest, "value", "not JSON")
	}
	body, err := json.Marshal(req)
	if err != nil {
		return flag, fmt.Errorf("client: the flag's setting: %w", err)
	}
	path, err := flagPath(name)
	if err != nil {
		return flag, err
	}
	err = c.call(ctx, http.MethodPut, c.endpoint(path, nil), routing, body, &flag)
	return flag, err
}

// UnsetFlag removes the setting that SetFlag makes, where there is one, and
// returns what the flag is without it.
func (c *Client) UnsetFlag(ctx context.Context, routing twinrail.Routing, name string) (twinrail.Flag, error) {
	var flag twinrail.Flag
	path, err := flagPath(name)
	if err != nil {
		return flag, err
	}
	err = c.call(ctx, http.MethodDelete, c.endpoint(path, nil), routing, nil, &flag)
	return flag, err
}

// flagPath returns the path of a flag. A name with a slash or dots in it would
// lead elsewhere.
func flagPath(name string) (string, error) {
	const inNames = "abcdefghijklmnopqrstuvwxyz0123456789_"
	if name == "" || strings.Trim(name, inNames) != "" {
		return "", twinrail.Errorf(twinrail.CodeBadRequest, "name", "must be of a-z 0-9 _")
	}
	return twinrail.PathFlags + "/" + name, nil
}
