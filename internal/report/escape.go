package report

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// JSONWriter passes JSON on to w and writes the characters that a terminal would
// obey, or that would reorder a line, as the escapes that mean the same: DEL, the
// control characters behind it, and everything invisible (Unicode's Cf, Zl, Zp).
// encoding/json leaves them as they are. Each Write must hold whole characters, as
// those of a json.Encoder do.
func JSONWriter(w io.Writer) io.Writer { return escaper{w, jsonEscape} }

// xmlWriter is JSONWriter for XML.
func xmlWriter(w io.Writer) io.Writer {
	return escaper{w, func(r rune) string { return fmt.Sprintf("&#x%x;", r) }}
}

// escaper writes what would be obeyed as its format does. All of JSON and of our
// XML that is foreign stands in strings, attributes and text, where it may.
type escaper struct {
	w      io.Writer
	escape func(rune) string
}

func (j escaper) Write(b []byte) (int, error) {
	start := 0
	for i := 0; i < len(b); {
		r, size := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(b[i:])
		}
		if obeyed(r) {
			if _, err := j.w.Write(b[start:i]); err != nil {
				return start, err
			}
			if _, err := io.WriteString(j.w, j.escape(r)); err != nil {
				return i, err
			}
			start = i + size
		}
		i += size
	}
	if _, err := j.w.Write(b[start:]); err != nil {
		return start, err
	}
	return len(b), nil
}

func obeyed(r rune) bool {
	switch {
	case r < 0x7f:
		return false // the encoders escape or replace what is below a space
	case r < 0xa0:
		return true
	}
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

func jsonEscape(r rune) string {
	if r <= 0xffff {
		return fmt.Sprintf(`\u%04x`, r)
	}
	r -= 0x10000
	return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
}
