package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// fail prints err as people read errors here: one line that says what could not
// be done and why, and one line that says what would help.
func (a *app) fail(cmd *cobra.Command, err error) {
	name := strings.TrimPrefix(cmd.CommandPath(), "gatehouse ")
	text := oneLine(err.Error())
	if first, _, _ := strings.Cut(name, " "); !strings.HasPrefix(text, first+" ") && !strings.HasPrefix(text, first+":") {
		text = name + ": " + text
	}
	hint := gatehouse.HintOf(err)
	switch {
	case cmd.Context() != nil && errors.Is(cmd.Context().Err(), context.Canceled): // whatever that broke
		text, hint = name+": interrupted", "run it again to have an answer"
	case hint == "":
		hint = a.usualHint(cmd, err)
	}
	fmt.Fprintf(a.stderr, "error: %s\nhint: %s\n", report.Printable(text), report.Printable(oneLine(hint)))
}

// usualHint is the hint of an error that brings none.
func (a *app) usualHint(cmd *cobra.Command, err error) string {
	if !a.running {
		return fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "look who may read or write it, or run it as somebody who may"
	case errors.Is(err, syscall.ENOSPC):
		return "make room on the disk, or name a place that has some"
	}
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeInvalid:
		return fmt.Sprintf("correct it; `%s --help` has examples", cmd.CommandPath())
	case gatehouse.CodeNotFound:
		return "check the name for a typing error"
	case gatehouse.CodeDenied:
		return "ask with an account that may do this; `gatehouse help credentials` says where names and passwords come from"
	case gatehouse.CodeTooLarge:
		return "the limit keeps one input from using up the machine; divide the input if you can"
	case gatehouse.CodeUnavailable, gatehouse.CodeTooMany:
		return "try again; -v shows each request"
	case gatehouse.CodeConflict:
		return "something else was changed meanwhile; look at it and try again"
	}
	return "run it again with -v, and report it with what that shows"
}

// oneLine folds a text of several lines, as YAML and Rego parsers write them.
func oneLine(s string) string {
	var parts []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, " ")
}

// gaveUp says which flag ended the work, instead of "context deadline exceeded".
func gaveUp(ctx context.Context, err error, flag string, after fmt.Stringer) error {
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "gave up after %s: %w", after, err).
		WithHint("allow it more time with --%s", flag)
}
