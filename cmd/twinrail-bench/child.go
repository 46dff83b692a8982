package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process of this command in another role. It answers each line that
// it is sent with one line.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func start(role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, append([]string{role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.lines = bufio.NewScanner(out)
	c.lines.Buffer(nil, 1<<20)
	return c, c.cmd.Start()
}

// line returns the next line of the child, as fields.
func (c *child) line() ([]string, error) {
	if !c.lines.Scan() {
		return nil, errors.Join(errors.New("a child has ended early"), c.lines.Err())
	}
	fields := strings.Fields(c.lines.Text())
	if len(fields) > 0 && fields[0] == "error" {
		return nil, fmt.Errorf("child: %s", c.lines.Text())
	}
	return fields, nil
}

// ask sends a line, and returns the answer.
func (c *child) ask(format string, args ...any) ([]string, error) {
	if _, err := fmt.Fprintf(c.stdin, format+"\n", args...); err != nil {
		return nil, err
	}
	return c.line()
}

// number is ask for an answer of one number.
func (c *child) number(format string, args ...any) (float64, error) {
	fields, err := c.ask(format, args...)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(fields[0], 64)
}

func (c *child) stop() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait() // a child ends when its input does
}

// serveLines answers each line of the parent with handle, until there are no
// more.
func serveLines(handle func(fields []string) (string, error)) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		answer, err := handle(strings.Fields(in.Text()))
		if err != nil {
			answer = "error " + err.Error()
		}
		if _, err := fmt.Println(answer); err != nil {
			return err
		}
	}
	return in.Err()
}

// numbers reads the first fields into the given variables.
func numbers(fields []string, into ...*int) error {
	if len(fields) < len(into) {
		return fmt.Errorf("%d numbers, want %d", len(fields), len(into))
	}
	for i, v := range into {
		var err error
		if *v, err = strconv.Atoi(fields[i]); err != nil {
			return err
		}
	}
	return nil
}

// own answers the questions that every child can.
func own(fields []string) (string, error) {
	switch fields[0] {
	case "memory":
		bytes, err := resident()
		return strconv.Itoa(bytes), err
	case "state": // bytes resident and on the heap, goroutines
		bytes, err := residentNow()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return fmt.Sprintf("%d %d %d", bytes, m.HeapAlloc, runtime.NumGoroutine()), err
	case "cpu":
		return strconv.FormatFloat(cpuSeconds(), 'f', 6, 64), nil
	}
	return "", fmt.Errorf("no such question: %s", fields[0])
}

// resident returns the resident memory of this process in bytes, after garbage
// and unused stacks were given back.
func resident() (int, error) {
	for range 4 { // a stack is halved by each collection
		runtime.GC()
	}
	debug.FreeOSMemory()
	time.Sleep(100 * time.Millisecond)
	return residentNow()
}

func residentNow() (int, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize(), err
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
