package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "TWINRAIL"

// configFile is the path of a YAML file with values of flags.
type configFile string

// BeforeResolve is called by kong once the command line and the environment have
// been read, and before defaults apply.
func (configFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path := string(ctx.FlagValue(trace.Flag).(configFile))
	if path == "" {
		return nil
	}
	values, err := readConfig(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	known := flagNames(ctx.Model.Node)
	for _, key := range values.keys {
		if !slices.Contains(known, key) {
			return fmt.Errorf("--config: %s, line %d: %q is not the name of a flag", path, values.lines[key], key)
		}
	}
	ctx.AddResolver(values)
	return nil
}

// flagNames returns the names of the flags of node and of all below it that a
// file may give a value to.
func flagNames(node *kong.Node) []string {
	var names []string
	for _, flag := range node.Flags {
		if flag.Name != "help" && flag.Name != "config" {
			names = append(append(names, flag.Name), flag.Aliases...)
		}
	}
	for _, child := range node.Children {
		names = append(names, flagNames(child)...)
	}
	return names
}

// configValues resolves flags from a file. A value is a string, as it was
// written, or a []any of such.
type configValues struct {
	path   string
	keys   []string // in their order
	lines  map[string]int
	values map[string]any
}

var _ kong.Resolver = (*configValues)(nil)

// Validate implements [kong.Resolver]; the keys were checked when they were read.
func (c *configValues) Validate(*kong.Application) error { return nil }

// Resolve implements [kong.Resolver]. To kong a resolver wins over the
// environment; here the environment does. An alias wins over the name, which
// another command may have too.
func (c *configValues) Resolve(ctx *kong.Context, path *kong.Path, flag *kong.Flag) (any, error) {
	if giver(ctx, flag) != inFile || outranked(ctx, path.Flags, flag) {
		return nil, nil
	}
	for _, key := range append(slices.Clone(flag.Aliases), flag.Name) {
		v, ok := c.values[key]
		if _, list := v.([]any); list && !flag.IsSlice() {
			return nil, c.notOne(key)
		}
		if ok {
			return v, nil
		}
	}
	return nil, nil
}

func (c *configValues) notOne(key string) error {
	hint := ""
	if key == "env" {
		hint = ": those that exist on a server are its envs"
	}
	return fmt.Errorf("%s, line %d: %q must be one value%s", c.path, c.lines[key], key, hint)
}

// rank says where the value of a flag comes from, those that win last.
type rank int

const (
	inFile rank = iota // or nowhere
	inEnvironment
	onCommandLine
)

func giver(ctx *kong.Context, flag *kong.Flag) rank {
	for _, path := range ctx.Path {
		if path.Flag == flag && !path.Resolved {
			return onCommandLine
		}
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return inEnvironment
		}
	}
	return inFile
}

// outranked reports whether one of the flags that excludes this one is given by
// what wins over what gives this one.
func outranked(ctx *kong.Context, flags []*kong.Flag, flag *kong.Flag) bool {
	return slices.ContainsFunc(flags, func(other *kong.Flag) bool {
		excludes := slices.ContainsFunc(other.Xor, func(group string) bool { return slices.Contains(flag.Xor, group) })
		return excludes && giver(ctx, other) > giver(ctx, flag)
	})
}

// BeforeResolve is called by kong before the file is read. It takes back what the
// environment says where the command line says what excludes it; the file's values
// are passed over when they are asked for.
func (*commands) BeforeResolve(ctx *kong.Context) error {
	for _, path := range ctx.Path {
		for _, flag := range path.Flags {
			if giver(ctx, flag) == inEnvironment && outranked(ctx, path.Flags, flag) {
				flag.Set = false
				flag.Target.SetZero()
			}
		}
	}
	return nil
}

func readConfig(path string) (*configValues, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := &configValues{path: path, lines: map[string]int{}, values: map[string]any{}}
	if len(document.Content) == 0 {
		return c, nil // empty, or comments alone
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", path)
	}
	return c, c.add(document.Content[0])
}

func (c *configValues) add(mapping *yaml.Node) error {
	if mapping.Kind != yaml.MappingNode {
		return c.errorf(mapping, "must be lines of the form flag: value")
	}
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if _, twice := c.lines[key.Value]; twice {
			return c.errorf(key, "%q is given twice", key.Value)
		}
		v, err := c.value(key.Value, value)
		if err != nil {
			return err
		}
		c.keys = append(c.keys, key.Value)
		c.lines[key.Value], c.values[key.Value] = key.Line, v
	}
	return nil
}

func (c *configValues) value(key string, node *yaml.Node) (any, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return node.Value, nil
	case node.Kind == yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, c.errorf(item, "%q must be a list of plain values", key)
			}
			list[i] = item.Value
		}
		return list, nil
	}
	return nil, c.errorf(node, "%q must be a plain value or a list of such", key)
}

func (c *configValues) errorf(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s, line %d: %s", c.path, node.Line, fmt.Sprintf(format, args...))
}
