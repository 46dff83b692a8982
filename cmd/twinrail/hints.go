package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// printHints prints what to paste next, each line into a shell of its own or one
// after the other: it works in any directory.
func printHints(p *process, url string, c *serveCmd) {
	name, data := p.name, c.Data
	if strings.ContainsRune(name, filepath.Separator) {
		name = absolute(name)
	}
	fmt.Fprintf(p.stderr, `
To try it, paste these lines into another terminal:

  export TWINRAIL_URL=%[1]s TWINRAIL_TOKEN=$(%[2]s token --data %[3]s --tenant t_acme --env %[4]s --actor u_1)
  %[2]s tail --workspace w1 --project p1 --app studio --canvas c1 --from earliest &
  echo '{"channel":"commit","type":"hello","routing":{"workspace_id":"w1","project_id":"p1","app_id":"studio","canvas_id":"c1"},"data":{"hello":"world"}}' | %[2]s publish

`, shellQuote(url), shellQuote(name), shellQuote(absolute(data)), shellQuote(c.Env[0]))
}

// absolute returns path as it can be used from anywhere, or as it is where the
// working directory is unknown.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
