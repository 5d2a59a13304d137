// Package epss reads FIRST's exploit prediction scores: the daily CSV goes in,
// unpacked, a table by CVE comes out.
package epss

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

const (
	bytesMax = 512 << 20 // the file has 10 MB
	linesMax = 5_000_000
	lineMax  = 4 << 10
)

// header is the line above the scores.
const header = "cve,epss,percentile"

// Is reports whether a file that begins like this holds EPSS scores.
func Is(head []byte) bool {
	return bytes.HasPrefix(head, []byte("#model_version:")) || bytes.HasPrefix(head, []byte(header))
}

// Read reads the scores and the day that they are for; the day is zero in files
// of before 2022, which do not tell it. Errors: CodeInvalid for any line that is
// malformed or cut short, CodeTooLarge.
func Read(r io.Reader) (table map[string]gatehouse.EPSS, day time.Time, err error) {
	lines := bufio.NewScanner(unpack.Bounded(r, bytesMax))
	lines.Buffer(make([]byte, 0, lineMax), lineMax)
	table = map[string]gatehouse.EPSS{}
	n, begun := 0, false
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		n++
		switch {
		case n > linesMax:
			return nil, day, gatehouse.Errorf(gatehouse.CodeTooLarge, "there are more than %d lines", linesMax)
		case strings.HasPrefix(line, "#") && !begun:
			if day, err = scoreDate(line); err != nil {
				return nil, day, err
			}
		case !begun:
			if line != header {
				return nil, day, gatehouse.Errorf(gatehouse.CodeInvalid, "line %d is %q, not %q", n, field.Clip(line), header)
			}
			begun = true
		case line == "":
		default:
			if err := score(table, line); err != nil {
				return nil, day, gatehouse.Errorf(gatehouse.CodeInvalid, "line %d: %w", n, err)
			}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, day, gatehouse.Errorf(gatehouse.CodeInvalid, "line %d is longer than %d bytes", n+1, lineMax)
	} else if err != nil {
		return nil, day, err
	}
	if len(table) == 0 {
		return nil, day, gatehouse.Errorf(gatehouse.CodeInvalid, "the file holds no score")
	}
	return table, day, nil
}

// scoreDate reads "#model_version:v2025.03.14,score_date:2025-05-01T00:00:00+0000".
func scoreDate(line string) (time.Time, error) {
	_, s, ok := strings.Cut(line, "score_date:")
	if !ok {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05-0700", time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, gatehouse.Errorf(gatehouse.CodeInvalid, "score_date %q is not a time", field.Clip(s))
}

func score(table map[string]gatehouse.EPSS, line string) error {
	cve, rest, _ := strings.Cut(line, ",")
	first, second, ok := strings.Cut(rest, ",")
	if err := field.CVE(cve); err != nil || !ok {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not a CVE with two numbers", field.Clip(line))
	}
	var one gatehouse.EPSS
	for _, f := range []struct {
		text string
		to   *float64
	}{{first, &one.Score}, {second, &one.Percentile}} {
		v, err := strconv.ParseFloat(f.text, 64)
		if err != nil || !(v >= 0 && v <= 1) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no number between 0 and 1", field.Clip(f.text))
		}
		*f.to = v
	}
	table[cve] = one
	return nil
}
