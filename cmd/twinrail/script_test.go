package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/*.txt, each in a directory of its own and with real
// processes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":      statusCommand,
			"until":       untilCommand,
			"capture":     captureCommand,
			"certificate": certificateCommand,
			"fetch":       fetchCommand,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// statusCommand is: status N command [args...]. It runs the command, which must
// exit with N; stdout and stderr are as after exec.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// untilDeadline is how long a process may take to get somewhere.
const untilDeadline = 60 * time.Second

// untilCommand is: until FILE REGEXP. It waits until the file, which another
// process writes, matches.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until FILE REGEXP")
	}
	match := regexp.MustCompile("(?m)" + args[1])
	deadline := time.Now().Add(untilDeadline)
	for {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && match.Match(text) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never matched %s: %v\n%s", args[0], args[1], err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// captureCommand is: capture VARIABLE FILE REGEXP. It sets the variable to what
// the expression's group matches last in the file.
func captureCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture VARIABLE FILE REGEXP")
	}
	found := regexp.MustCompile("(?m)"+args[2]).FindAllStringSubmatch(ts.ReadFile(args[1]), -1)
	if len(found) == 0 || len(found[0]) != 2 {
		ts.Fatalf("%s does not match %s with one group", args[1], args[2])
	}
	ts.Setenv(args[0], found[len(found)-1][1])
}

// fetchCommand is: fetch STATUS URL. It gets the URL, which must answer with the
// status; stdout is the body.
func fetchCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fetch STATUS URL")
	}
	resp, err := http.Get(args[1])
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s answers %s", args[1], resp.Status)
	}
}

// certificateCommand is: certificate CERT KEY. It makes a certificate of
// 127.0.0.1 that signs itself.
func certificateCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: certificate CERT KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: certificate}, {Type: "PRIVATE KEY", Bytes: private}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}
