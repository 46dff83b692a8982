package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/probe"
)

// probeCmd tries from outside what a server promises.
type probeCmd struct {
	Isolation isolationCmd `cmd:"" help:"Try whether anybody receives, learns of or changes what is not theirs."`
}

// isolationCmd runs the isolation matrix.
type isolationCmd struct {
	URL    string `name:"url" help:"The server's URL." default:"http://127.0.0.1:8080"`
	TokenA string `name:"token-a" help:"The token of one tenant. Better given in the environment: others can see a command line." placeholder:"JWT"`
	TokenB string `name:"token-b" help:"The token of another tenant." placeholder:"JWT"`
	KeyA   string `name:"key-a" help:"File with what one tenant's tokens are signed with: a private key in PEM or as a JWK, or an HMAC secret, as for serve --auth-hmac-secret-file." placeholder:"FILE"`
	KeyB   string `name:"key-b" help:"File with the other one's. Default that of --key-a." placeholder:"FILE"`
	Data   string `help:"The data directory of a development server, whose key signs. It counts where neither tokens nor keys are given." default:"${defaultData}"`

	Alg      string   `help:"How to sign with keys that do not say it themselves, as a JWK may. Default the first that the key is good for: HS256, RS256, ES256, ES384, ES512 or EdDSA." placeholder:"ALG"`
	Kid      string   `help:"The kid of the tokens, with keys that do not say it themselves." placeholder:"KID"`
	Issuer   string   `help:"The iss of the tokens, as for serve --auth-issuer." placeholder:"ISS"`
	Audience []string `help:"The aud of the tokens, as for serve --auth-audience; may be repeated." placeholder:"AUD"`

	TenantA  string `name:"tenant-a" help:"The one tenant, where tokens are signed here." default:"t_probe_a"`
	TenantB  string `name:"tenant-b" help:"The other one." default:"t_probe_b"`
	Env      string `help:"The environment to act in, where tokens are signed here." default:"dev"`
	OtherEnv string `help:"Another environment of the server's; empty for none, which leaves out what needs two." default:"staging"`

	Only        []string      `help:"Only these ways in, such as sse-live; may be repeated." placeholder:"WAY"`
	Key         []string      `help:"Only these routing keys, such as tenant_id; may be repeated." placeholder:"KEY"`
	ChangeFlags bool          `help:"Change flags of the two tenants for as long as it takes: gestures are switched on, and their rate is raised. Without it what needs that is skipped."`
	Timeout     time.Duration `help:"How long one cell of the matrix may take." default:"15s"`
	Parallel    int           `help:"How many cells are tried at the same time." default:"8"`
	JSON        bool          `name:"json" help:"Print the report as JSON."`
}

// Help implements kong's HelpProvider.
func (isolationCmd) Help() string {
	return `For each of the eleven routing keys and each way in, parties that differ in that key alone use the server, at addresses that nobody else has. What is for one must come to that one, and nowhere else. It needs tokens of two tenants, of one of these:

  a development server's data directory: twinrail probe isolation --data DIR
  what tokens are signed with, a private key or a secret: --key-a FILE [--key-b FILE], with --issuer and --audience where the server expects them
  two tokens, in TWINRAIL_TOKEN_A and TWINRAIL_TOKEN_B; they allow less to be tried

A cell is pass, LEAK, BROKEN (not even the right one got it, so nothing is proved), or skip (something that it takes is not there). Exit status: 0 where no cell leaks or is broken, 1 where one does or is, and where all are skipped.`
}

// Run implements the command.
func (c *isolationCmd) Run(p *process) error {
	options, err := c.options()
	if err != nil {
		return usageError(err)
	}
	tokens, err := c.tokens()
	if err != nil {
		return usageError(err, "twinrail probe isolation --help says what it takes")
	}
	if err := c.reach(p.ctx, tokens); err != nil {
		return err
	}
	if c.ChangeFlags {
		restore, err := c.allowGestures(p.ctx, tokens)
		defer restore(p)
		if err != nil {
			return err
		}
	}
	report, err := probe.Run(p.ctx, probe.Target{URL: c.URL, Tokens: tokens}, options)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(p.stdout, report)
	} else {
		err = report.WriteText(p.stdout)
	}
	return errors.Join(verdict(report), err)
}

// options checks what of the matrix is asked for.
func (c *isolationCmd) options() (probe.Options, error) {
	o := probe.Options{Ways: c.Only, Parallel: c.Parallel, Timeout: c.Timeout, ChangeFlags: c.ChangeFlags}
	for _, name := range c.Only {
		if !slices.Contains(probe.Ways(), name) {
			return o, fmt.Errorf("--only: %q is none of the ways in: %s", name, strings.Join(probe.Ways(), ", "))
		}
	}
	for _, name := range c.Key {
		i := slices.IndexFunc(twinrail.Keys(), func(k twinrail.Key) bool { return k.String() == name })
		if i < 0 {
			return o, fmt.Errorf("--key: %q is no routing key, such as tenant_id, env or panel_id", name)
		}
		o.Keys = append(o.Keys, twinrail.Keys()[i])
	}
	switch {
	case c.Timeout < time.Second || c.Timeout > 10*time.Minute:
		return o, fmt.Errorf("--timeout: must be %v to %v, not %v", time.Second, 10*time.Minute, c.Timeout)
	case c.Parallel < 1 || c.Parallel > 64:
		return o, fmt.Errorf("--parallel: must be 1 to 64, not %d", c.Parallel)
	}
	return o, nil
}

// tokens returns where the parties have their tokens from. Its errors name flags
// and files, and nothing of a secret.
func (c *isolationCmd) tokens() (probe.Tokens, error) {
	haveTokens, haveKeys := c.TokenA != "" || c.TokenB != "", c.KeyA != "" || c.KeyB != ""
	switch {
	case haveTokens && haveKeys:
		return nil, errors.New("--token-a and --key-a: give tokens or keys, not both")
	case haveTokens && (c.Alg != "" || c.Kid != "" || c.Issuer != "" || len(c.Audience) > 0):
		return nil, errors.New("--alg, --kid, --issuer and --audience: they go with keys; a token has its own")
	case haveTokens && (c.TokenA == "" || c.TokenB == ""):
		return nil, errors.New("--token-a and --token-b: one needs the other")
	case haveTokens:
		return probe.NewFixed(c.TokenA, c.TokenB)
	case haveKeys && c.KeyA == "":
		return nil, errors.New("--key-b: it needs --key-a")
	}
	a, b, err := c.signers()
	if err != nil {
		return nil, err
	}
	return probe.NewMinted(probe.Signer{TenantID: c.TenantA, Key: a}, probe.Signer{TenantID: c.TenantB, Key: b}, c.Env, c.OtherEnv)
}

// signers returns what signs the tokens of the two tenants.
func (c *isolationCmd) signers() (a, b *auth.Signer, err error) {
	if c.KeyA == "" {
		a, err = c.developmentSigner()
		return a, a, err
	}
	if a, err = c.signer("--key-a", c.KeyA); err != nil || c.KeyB == "" {
		return a, a, err
	}
	b, err = c.signer("--key-b", c.KeyB)
	return a, b, err
}

// developmentSigner signs with the key of a development server.
func (c *isolationCmd) developmentSigner() (*auth.Signer, error) {
	if _, err := os.Stat(filepath.Join(c.Data, auth.KeyFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--data: there is no %s in %s: give a development server's data directory, keys, or tokens", auth.KeyFile, c.Data)
	}
	key, err := auth.LoadOrCreateKey(c.Data, auth.KeyFile)
	if err != nil {
		return nil, err
	}
	return c.sign("--data", auth.Key{Material: key})
}

// signer signs with the key in the file that the flag names.
func (c *isolationCmd) signer(flag, path string) (*auth.Signer, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	key, err := auth.ParseSigningKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", flag, path, err)
	}
	return c.sign(flag, key)
}

func (c *isolationCmd) sign(flag string, key auth.Key) (*auth.Signer, error) {
	key.Algorithm, key.ID = cmp.Or(key.Algorithm, c.Alg), cmp.Or(key.ID, c.Kid)
	s, err := auth.NewSigner(auth.SignerOptions{Key: key, Issuer: c.Issuer, Audiences: c.Audience})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return s, nil
}

// probeActor is who acts for the probe where any actor can be had.
const probeActor = "probe"

// visitors returns those who must be let in for the matrix to be played: of each
// tenant, and of the second env where there is one.
func (c *isolationCmd) visitors(tokens probe.Tokens) []probe.Want {
	var all []probe.Want
	for _, side := range []probe.Side{probe.SideA, probe.SideB} {
		base := tokens.Base(side)
		all = append(all, probe.Want{TenantID: base.TenantID, Env: base.Env, ActorID: base.ActorID})
	}
	if env := tokens.OtherEnv(); env != "" && all[1].Env != env {
		all = append(all, probe.Want{TenantID: all[0].TenantID, Env: env, ActorID: all[0].ActorID})
	}
	for i := range all {
		if all[i].ActorID == "" {
			all[i].ActorID = probeActor
		}
	}
	return all
}

// reach has every visitor read a canvas of the probe's once, so that what keeps
// all cells from being played is said once, and before anything is written.
func (c *isolationCmd) reach(ctx context.Context, tokens probe.Tokens) error {
	for _, visitor := range c.visitors(tokens) {
		remote, err := c.dial(tokens, visitor)
		if err != nil {
			return err
		}
		_, err = remote.History(ctx, twinrail.Routing{
			TenantID: visitor.TenantID, Env: visitor.Env,
			WorkspaceID: probeActor, ProjectID: probeActor, AppID: probeActor, CanvasID: probeActor,
		}, client.HistoryOptions{Limit: 1})
		remote.Close()
		if err != nil {
			return reachError(fmt.Errorf("%s in %s: %w", visitor.TenantID, visitor.Env, err))
		}
	}
	return nil
}

// reachError gives the error of a visitor hints of its own.
func reachError(err error) error {
	e := explain(err)
	switch twinrail.CodeOf(err) {
	case twinrail.CodeCredentialInvalid:
		e.hints = []string{"the server must know the key, and the environments of --env and --other-env (empty for none); --issuer and --audience must be what it expects"}
	case twinrail.CodeCredentialExpired, twinrail.CodeCredentialRevoked:
		e.hints = []string{"get new tokens, and set TWINRAIL_TOKEN_A and TWINRAIL_TOKEN_B to them"}
	case twinrail.CodeNotFound:
		e.hints = []string{`the probe uses addresses of its own: its tokens need a grant with "*" for all home keys`}
	}
	return e
}

func (c *isolationCmd) dial(tokens probe.Tokens, visitor probe.Want) (*client.Client, error) {
	token, err := tokens.Token(visitor)
	if err != nil {
		return nil, err
	}
	remote, err := client.New(client.Options{URL: c.URL, Token: token})
	if err != nil {
		return nil, usageError(fmt.Errorf("--url: %w", err))
	}
	return remote, nil
}

// verdict returns nil where isolation holds in every cell that was played, and one
// was.
func verdict(r *probe.Report) error {
	leaks, broken := len(r.Leaks()), len(r.Broken())
	switch {
	case leaks > 0:
		return &commandError{fmt.Errorf("isolation does not hold: %d of %d cells leak", leaks, len(r.Cells)), exitFailed,
			[]string{"--only WAY --key KEY tries one cell again; its detail says who saw what, and where"}}
	case broken > 0:
		return &commandError{fmt.Errorf("nothing leaks, but %d of %d cells prove nothing: the server did not even serve who has the right to it", broken, len(r.Cells)), exitFailed,
			[]string{"for a server that is slow or at its limits there are --timeout and --parallel"}}
	case len(r.Of(probe.Skipped)) == len(r.Cells):
		return &commandError{errors.New("nothing was tried: all cells were skipped"), exitFailed,
			[]string{"the report says what each of them takes"}}
	}
	return nil
}
