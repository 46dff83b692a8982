// Command twinrail is the server and its tools: serve, token, publish, tail, flags,
// probe.
//
// Each command is built by hand in its own file and run as a whole; what they
// share is the process that they run in, the way they are configured, and how
// they fail.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit statuses.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3 // by the server: 401, 403, 404
)

// process is what a command has of the world.
type process struct {
	// ctx ends with the first SIGINT or SIGTERM, after which the next one kills, as
	// the first one does after stop.
	ctx    context.Context
	stop   context.CancelFunc
	name   string // by which the process was called
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// commands is the command line. A flag's environment variable and its key in the
// file follow from its name.
type commands struct {
	Config configFile `help:"YAML file with a value for any flag: its key is the flag's name. The command line wins over the environment, and that over the file." placeholder:"FILE" default:""`

	Serve   serveCmd   `cmd:"" help:"Run the server."`
	Token   tokenCmd   `cmd:"" help:"Print a token for development, signed with the key in the data directory."`
	Publish publishCmd `cmd:"" help:"Publish events from standard input."`
	Tail    tailCmd    `cmd:"" help:"Follow a canvas or a thread."`
	Flags   flagsCmd   `cmd:"" help:"Read and set what a tenant, or the platform, has switched on."`
	Probe   probeCmd   `cmd:"" help:"Try a server's promises from outside."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

func main() {
	os.Exit(run(os.Args))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	p := &process{ctx: ctx, stop: stop, name: args[0], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	return p.run(args[1:])
}

func (p *process) run(args []string) int {
	parser, exited, err := p.parser()
	if err != nil {
		return p.fail(err)
	}
	selected, err := parser.Parse(args)
	if *exited {
		return exitDone // help was asked for
	}
	if err != nil {
		return p.fail(usageError(err, parseHints(err)...))
	}
	return p.fail(selected.Run(p))
}

// parser returns the parser of the command line, and whether it has done all
// there is to do, as it has with --help.
func (p *process) parser() (*kong.Kong, *bool, error) {
	exited := new(bool)
	parser, err := kong.New(new(commands),
		kong.Name("twinrail"),
		kong.Description("A multi-tenant realtime gateway: every subscriber is a cursor.\n\n"+
			"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the server (401, 403, 404)."),
		kong.DefaultEnvars(envPrefix),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { *exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"defaultData": defaultData},
	)
	return parser, exited, err
}

// fail says what went wrong and what to do next, and returns the exit status.
func (p *process) fail(err error) int {
	if err == nil {
		return exitDone
	}
	var e *commandError
	if !errors.As(err, &e) {
		e = explain(err)
	}
	fmt.Fprintf(p.stderr, "twinrail: error: %v\n", e.err)
	for _, hint := range e.hints {
		fmt.Fprintf(p.stderr, "twinrail: hint: %s\n", hint)
	}
	return e.status
}
