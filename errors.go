package gatehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Code says what kind of failure an [Error] is. Each edge (registry, API,
// admission, command line) has one table from Code to its own protocol.
type Code string

const (
	CodeNotFound    Code = "not-found"   // the thing named does not exist, or the actor may not know that it does
	CodeInvalid     Code = "invalid"     // the input is wrong; sending it again cannot help
	CodeDenied      Code = "denied"      // a permission or a policy says no
	CodeConflict    Code = "conflict"    // the state changed, or the change is forbidden in this state
	CodeTooLarge    Code = "too-large"   // a named limit was exceeded
	CodeTooMany     Code = "too-many"    // slow down
	CodeUnavailable Code = "unavailable" // something we depend on does not answer; try again later
	CodeDamaged     Code = "damaged"     // stored bytes are missing or changed; only other bytes can help
	CodeInternal    Code = "internal"    // our own fault; the text goes to the log only
)

// Error is the error a caller can act on. Message is one sentence without a
// full stop that is safe to show; Hint says what to do; Err is the cause and
// goes to the log only.
type Error struct {
	Code    Code
	Message string
	Hint    string
	// Detail names the protocol's own refinement where Code is too coarse, for
	// example "BLOB_UNKNOWN" of the OCI distribution-spec. Empty is fine.
	Detail string
	Err    error
}

// Error returns the message and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	if _, said := e.Err.(silent); said {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause. A nil Error, which somebody has made an error of, has none.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// WithHint returns a copy of e that carries hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithDetail returns a copy of e that carries the protocol's own code.
func (e *Error) WithDetail(detail string) *Error {
	c := *e
	c.Detail = detail
	return &c
}

// Errorf makes an [Error]. A %w verb in format sets the cause without
// repeating it in the message shown to users.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: hideMessage(errors.Unwrap(err))}
}

// hideMessage keeps the chain for errors.Is and errors.As although Message
// already contains the text of the cause.
func hideMessage(err error) error {
	if err == nil {
		return nil
	}
	return silent{err}
}

type silent struct{ err error }

func (s silent) Error() string { return s.err.Error() }
func (s silent) Unwrap() error { return s.err }

// CodeOf returns the code of the first [Error] in err's chain: "" for nil,
// CodeUnavailable for a time that is over, CodeInternal for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if errors.Is(err, context.DeadlineExceeded) { // a time of our own: whoever asks may ask again
		return CodeUnavailable
	}
	return CodeInternal
}

// HintOf returns the hint of the first [Error] in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// Foreign makes a text of somebody else fit for a message: on one line, at most max
// bytes and an ellipsis long, and without what a terminal would obey.
func Foreign(text string, max int) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return '?'
	}, text)), " ")
	if len(text) > max {
		return strings.ToValidUTF8(text[:max], "") + "…"
	}
	return text
}
