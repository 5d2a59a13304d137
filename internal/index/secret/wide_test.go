package secret_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

func utf16Of(s string, order binary.AppendByteOrder) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = order.AppendUint16(out, u)
	}
	return out
}

// TestWide: a file in UTF-16 has the findings, at the lines, that it has in ASCII;
// at once and in pieces that end in the middle of a unit.
func TestWide(t *testing.T) {
	for _, s := range samples(t) {
		if strings.ContainsFunc(s.content, func(r rune) bool { return r == 0 || r > 0x7f }) || len(s.content) < 64 {
			continue
		}
		content := strings.Repeat("# grün\r\n", 3000) + s.content
		want := scan(s.path, []byte(strings.ReplaceAll(content, "ü", "u")))
		for name, b := range map[string][]byte{
			"little-endian with mark": utf16Of("\ufeff"+content, binary.LittleEndian), "big-endian with mark": utf16Of("\ufeff"+content, binary.BigEndian),
			"little-endian": utf16Of(content[:1]+" "+content[1:], binary.LittleEndian), "big-endian": utf16Of(content[:1]+" "+content[1:], binary.BigEndian),
		} {
			if d := cmp.Diff(want, scan(s.path, b)); d != "" {
				t.Errorf("%s %s: %s", s.path, name, d)
			}
			var pieces []gatehouse.Finding
			scanner := secret.NewScanner()
			if !scanner.Begin(s.path) {
				continue
			}
			const size, keep = 20_001, secret.Ahead + secret.Back
			for at := 0; at < len(b); at += size {
				from := max(0, at-keep)
				if !scanner.Piece(b[from:min(len(b), at+size)], at-from, at+size >= len(b), func(f gatehouse.Finding) { pieces = append(pieces, f) }) {
					break
				}
			}
			if d := cmp.Diff(want, pieces); d != "" {
				t.Errorf("%s %s in pieces: %s", s.path, name, d)
			}
		}
	}
}
