package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// flagsCmd reads and changes what a tenant, or the platform, has switched on.
type flagsCmd struct {
	List  listFlagsCmd `cmd:"" default:"withargs" help:"Print all flags, as they are for the token's tenant and env."`
	Set   setFlagCmd   `cmd:"" help:"Set a flag, and print what it is then."`
	Unset unsetFlagCmd `cmd:"" help:"Remove a setting, and print what the flag is then."`
}

// Help implements kong's HelpProvider.
func (flagsCmd) Help() string {
	return `A flag is what the tenant has set for the env, where the platform lets tenants override it; else what the platform's own tenant, Tenant-0, has set for the env; else what is built in. The token is an owner's or admin's of the tenant, or of Tenant-0 to set it for all tenants.

A line has the flag's name, its value, whose word that is (tenant, tenant0, default), and whether tenants may override it (overridable, fixed).`
}

type listFlagsCmd struct {
	remote `embed:""`
	JSON   bool `name:"json" help:"Print one JSON list."`
}

// Run implements the command.
func (c *listFlagsCmd) Run(p *process) error {
	remote, routing, err := c.dial(client.Options{})
	if err != nil {
		return err
	}
	defer remote.Close()
	flags, err := remote.Flags(p.ctx, routing)
	if err != nil {
		return flagError(err)
	}
	if c.JSON {
		return printJSON(p.stdout, flags)
	}
	return printFlags(p.stdout, flags...)
}

type setFlagCmd struct {
	remote      `embed:""`
	Name        string `arg:"" help:"The flag."`
	Value       string `arg:"" help:"Its value: true or false, or a number, as its default is."`
	Overridable *bool  `negatable:"" help:"Let tenants override it, or not. Only Tenant-0 says so; without it that stays as it is."`
	JSON        bool   `name:"json" help:"Print the flag as JSON."`
}

// Run implements the command.
func (c *setFlagCmd) Run(p *process) error {
	if !json.Valid([]byte(c.Value)) {
		return usageError(fmt.Errorf("%q is no value of a flag", c.Value), "give true or false, or a number")
	}
	remote, routing, err := c.dial(client.Options{})
	if err != nil {
		return err
	}
	defer remote.Close()
	flag, err := remote.SetFlag(p.ctx, routing, c.Name, twinrail.FlagRequest{Value: json.RawMessage(c.Value), Overridable: c.Overridable})
	return printFlag(p, flag, c.JSON, err)
}

type unsetFlagCmd struct {
	remote `embed:""`
	Name   string `arg:"" help:"The flag."`
	JSON   bool   `name:"json" help:"Print the flag as JSON."`
}

// Run implements the command.
func (c *unsetFlagCmd) Run(p *process) error {
	remote, routing, err := c.dial(client.Options{})
	if err != nil {
		return err
	}
	defer remote.Close()
	flag, err := remote.UnsetFlag(p.ctx, routing, c.Name)
	return printFlag(p, flag, c.JSON, err)
}

func printFlag(p *process, flag twinrail.Flag, asJSON bool, err error) error {
	switch {
	case err != nil:
		return flagError(err)
	case asJSON:
		return printJSON(p.stdout, flag)
	}
	return printFlags(p.stdout, flag)
}

func printJSON(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", line)
	}
	return err
}

// printFlags prints a line each, in columns:
//
//	gesture_rate  10  tenant0  fixed  (the tenant's own 20 has no effect)
func printFlags(w io.Writer, flags ...twinrail.Flag) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range flags {
		f := &flags[i]
		leave := "fixed"
		if f.Overridable {
			leave = "overridable"
		}
		if f.Overruled != nil {
			leave += fmt.Sprintf("  (the tenant's own %s has no effect)", f.Overruled)
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\n", printable(f.Name), printable(string(f.Value)), printable(string(f.Source)), printable(leave))
	}
	return columns.Flush()
}

// flagError gives the error of a call hints of its own: not_found is no matter of
// an address here.
func flagError(err error) error {
	if twinrail.CodeOf(err) != twinrail.CodeNotFound {
		return err
	}
	e := explain(err)
	e.hints = []string{"flags are an owner's or admin's to read and set; twinrail flags prints those that there are"}
	return e
}
