package main

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
	"github.com/twinrail/twinrail/internal/disk"
)

// commandError is why a command failed: an exit status, and what to do next.
type commandError struct {
	err    error
	status int
	hints  []string
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

func usageError(err error, hints ...string) error {
	return &commandError{err, exitUsage, hints}
}

func parseHints(err error) []string {
	if strings.HasPrefix(err.Error(), "expected one of") {
		return []string{"twinrail serve starts a server; twinrail --help lists the rest"}
	}
	return []string{"twinrail --help lists the commands, twinrail COMMAND --help the flags of one"}
}

// explain finds the status and the hints of an error that says nothing of them.
func explain(err error) *commandError {
	var response *client.ResponseError
	var remote *twinrail.Error
	switch {
	case errors.Is(err, client.ErrGone):
		return &commandError{err, exitRefused, nil}
	case errors.As(err, &response):
		status := response.Err.Code.Info().Status
		if http.StatusText(response.Status) != "" {
			status = response.Status
		}
		return &commandError{err, statusOf(status), codeHints(response.Err.Code)}
	case errors.As(err, &remote):
		// The client found it before the server did, or in what the server sent.
		status := exitUsage
		if remote.Code == twinrail.CodeTooLarge {
			status = exitFailed
		}
		return &commandError{err, status, codeHints(remote.Code)}
	case errors.Is(err, disk.ErrLocked):
		return &commandError{err, exitFailed, []string{"stop the other server, or give this one a --data of its own"}}
	case errors.Is(err, syscall.EADDRINUSE):
		return &commandError{err, exitFailed, []string{"stop what listens there, or choose another --listen or --admin-listen; port 0 takes any free one"}}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &commandError{err, exitFailed, []string{"is a server running at this --url? twinrail serve starts one"}}
	case errors.Is(err, fs.ErrPermission):
		return &commandError{err, exitFailed, []string{"run as the owner of the file or directory, or choose another"}}
	}
	return &commandError{err, exitFailed, nil}
}

func statusOf(httpStatus int) int {
	switch httpStatus {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return exitRefused
	}
	return exitFailed
}

// codeHints says what to do about what the server answered.
func codeHints(code twinrail.Code) []string {
	switch code {
	case twinrail.CodeCredentialMissing, twinrail.CodeCredentialInvalid, twinrail.CodeCredentialExpired, twinrail.CodeCredentialRevoked:
		return []string{"get a new token and set TWINRAIL_TOKEN to it; for a development server: twinrail token --data DIR --tenant T --env E --actor A"}
	case twinrail.CodeContextMismatch:
		return []string{"leave --tenant and --env out to take them from the token"}
	case twinrail.CodeNotFound:
		return []string{"the token grants nothing at this address, or the address is misspelt: a server does not say which"}
	case twinrail.CodeContextMissing, twinrail.CodeContextInvalid:
		return []string{"an address is tenant, env, workspace, project, app, and a canvas or a thread"}
	case twinrail.CodeWrongRail:
		return []string{"commit, artifact and gesture are followed with --canvas, chat and tool with --thread, and presence with --presence"}
	case twinrail.CodeSeqConflict:
		return []string{"somebody else published first: read what is new, and expect its last seq"}
	case twinrail.CodeIDConflict:
		return []string{"an id names one event for ever: give the new one another"}
	case twinrail.CodeRailDisabled:
		return []string{"the tenant, or the platform for all of them, has switched this rail off: twinrail flags says who"}
	}
	return nil
}
