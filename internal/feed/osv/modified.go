package osv

import (
	"bufio"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// Change is one line of the list of records that OSV.dev publishes beside them,
// modified_id.csv.
type Change struct {
	Modified  time.Time
	Ecosystem string // the folder of the record; empty in an ecosystem's own list
	ID        string
}

const (
	changeLineMax = 2 << 10 // bytes
	changesMax    = 5_000_000
)

// ReadChanges reads modified_id.csv, newest change first: lines of
// "<time>,<id>", or "<time>,<ecosystem>/<id>" in the list of all ecosystems. The
// caller stops at the first change that it knows. A list that is not in order
// is an error, because stopping would then lose changes.
// Errors: CodeInvalid, CodeTooLarge; they end the stream.
func ReadChanges(r io.Reader) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, changeLineMax), changeLineMax)
		var last time.Time
		n := 0
		for lines.Scan() {
			line := strings.TrimRight(lines.Text(), "\r")
			if n++; line == "" {
				continue
			}
			c, err := parseChange(line)
			switch {
			case err != nil:
			case n > changesMax:
				err = gatehouse.Errorf(gatehouse.CodeTooLarge, "there are more than %d lines", changesMax)
			case !last.IsZero() && c.Modified.After(last):
				err = gatehouse.Errorf(gatehouse.CodeInvalid, "it is newer than the line before, so that the list is in no order")
			}
			if err != nil {
				yield(Change{}, gatehouse.Errorf(gatehouse.CodeOf(err), "line %d: %w", n, err))
				return
			}
			last = c.Modified
			if !yield(c, nil) {
				return
			}
		}
		err := lines.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "line %d is longer than %d bytes", n+1, changeLineMax)
		}
		if err == nil && last.IsZero() {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "the list of changes is empty")
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

func parseChange(line string) (c Change, err error) {
	at, id, ok := strings.Cut(line, ",")
	if !ok || at == "" {
		return c, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not a time and an id", field.Clip(line))
	}
	if c.Modified, err = field.Time("modified", at); err != nil {
		return c, err
	}
	c.ID = id
	if slash := strings.LastIndexByte(id, '/'); slash >= 0 {
		c.Ecosystem, c.ID = id[:slash], id[slash+1:]
	}
	// The id becomes part of an address.
	if c.ID == "" || c.ID == "." || c.ID == ".." || strings.ContainsAny(c.Ecosystem+c.ID, "/\\?#%") {
		return c, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no id", field.Clip(id))
	}
	if err := field.Check("ecosystem", c.Ecosystem, field.IDMax); err != nil {
		return c, err
	}
	return c, field.Check("id", c.ID, field.IDMax)
}
