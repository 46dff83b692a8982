package main

import (
	"fmt"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

const defaultData = "./twinrail-data"

// tokenCmd mints a token for development.
type tokenCmd struct {
	Data      string        `help:"The server's data directory, whose key signs. It is made where there is none." default:"${defaultData}"`
	Tenant    string        `help:"The tenant: t_ and then a-z 0-9 _ -" required:"" placeholder:"T"`
	Env       string        `help:"The environment, such as dev." required:"" placeholder:"ENV"`
	Actor     string        `help:"Who the token speaks for." required:"" placeholder:"ACTOR"`
	ActorType string        `help:"What the actor is: ${enum}." enum:"human,agent,system" default:"human"`
	Role      string        `help:"The actor's role in the tenant: ${enum}." enum:"owner,admin,member,viewer" default:"member"`
	Grant     []string      `help:"What the token allows, as JSON; may be repeated. Without it, everything within the tenant and env. Example: {\"workspace_id\":\"w1\",\"project_id\":\"*\",\"app_id\":\"studio\",\"canvas_id\":\"*\",\"can\":[\"commit:read\"]}" sep:"none" placeholder:"JSON"`
	TTL       time.Duration `name:"ttl" help:"How long it is valid." default:"1h"`
}

// Run implements the command.
func (c *tokenCmd) Run(p *process) error {
	grants := []twinrail.Grant{auth.FullGrant()}
	if len(c.Grant) > 0 {
		grants = grants[:0]
	}
	for _, text := range c.Grant {
		grant, err := auth.ParseGrant([]byte(text))
		if err != nil {
			return usageError(fmt.Errorf("--grant: %w", err))
		}
		grants = append(grants, grant)
	}
	key, err := auth.LoadOrCreateKey(c.Data, auth.KeyFile)
	if err != nil {
		return err
	}
	token, err := auth.Mint(key, twinrail.Identity{
		ActorID: c.Actor, ActorType: twinrail.ActorType(c.ActorType), Role: twinrail.Role(c.Role),
		TenantID: c.Tenant, Env: c.Env, Grants: grants,
	}, c.TTL)
	if err != nil {
		return usageError(err)
	}
	_, err = fmt.Fprintln(p.stdout, token)
	return err
}
