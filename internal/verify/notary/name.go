package notary

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// nameSizeMax bounds a distinguished name in bytes, attributesMax in attributes.
const (
	nameSizeMax   = 4 << 10
	attributesMax = 50
)

// name is a distinguished name: attribute type ("C", "ST", "2.5.4.97") to value.
// The specification takes neither repeated types nor sets of several attributes.
type name map[string]string

// covers tells whether every attribute of n is in the other with the same value:
// a trusted identity may leave out what it does not care about.
func (n name) covers(other name) bool {
	for k, v := range n {
		if got, ok := other[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (n name) add(kind, value string) error {
	if kind == "S" { // an alias of the specification
		kind = "ST"
	}
	if _, twice := n[kind]; twice {
		return fmt.Errorf("attribute %s stands there twice", clip(kind))
	}
	if value == "" {
		return fmt.Errorf("attribute %s is empty", clip(kind))
	}
	if len(n) >= attributesMax {
		return fmt.Errorf("more than %d attributes", attributesMax)
	}
	n[kind] = value
	return nil
}

func (n name) complete() error {
	for _, k := range []string{"C", "ST", "O"} {
		if n[k] == "" {
			return fmt.Errorf("attribute %s is missing", k)
		}
	}
	return nil
}

// parseName reads the string form of RFC 4514, with spaces round separators as
// people write them. Hexadecimal values (O=#0401…) and multi-valued sets (C=US+O=x)
// are refused, as the specification says.
func parseName(s string) (name, error) {
	if len(s) > nameSizeMax {
		return nil, fmt.Errorf("%d bytes, %d at most", len(s), nameSizeMax)
	}
	n := name{}
	for s = strings.TrimLeft(s, " "); s != ""; {
		kind, rest, ok := strings.Cut(s, "=")
		if !ok {
			return nil, errors.New("it has an attribute without a value")
		}
		kind = strings.ToUpper(strings.TrimSpace(kind))
		if !validKind(kind) {
			return nil, fmt.Errorf("%q is not an attribute type", clip(kind))
		}
		value, rest, more, err := parseValue(rest)
		if err != nil {
			return nil, err
		}
		if err := n.add(kind, value); err != nil {
			return nil, err
		}
		if s = strings.TrimLeft(rest, " "); more && s == "" {
			return nil, errors.New("it ends with a separator")
		}
	}
	return n, n.complete()
}

func validKind(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
	})
}

// parseValue reads an attribute's value up to a separator, which it eats; more
// says that there was one.
func parseValue(s string) (value, rest string, more bool, err error) {
	s = strings.TrimLeft(s, " ")
	if strings.HasPrefix(s, "#") {
		return "", "", false, errors.New("hexadecimal values are not accepted")
	}
	var b strings.Builder
	kept := 0 // length with spaces at the end that were escaped
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', ';':
			return finish(b.String(), kept, s[i+1:], true)
		case '+':
			return "", "", false, errors.New("sets of several attributes (+) are not accepted")
		case '"', '<', '>', 0:
			return "", "", false, fmt.Errorf("%q has to be escaped with \\", c)
		case '\\':
			decoded, size, err := unescape(s[i+1:])
			if err != nil {
				return "", "", false, err
			}
			b.WriteByte(decoded)
			kept = b.Len()
			i += size
		default:
			b.WriteByte(c)
		}
	}
	return finish(b.String(), kept, "", false)
}

func finish(value string, kept int, rest string, more bool) (string, string, bool, error) {
	value = value[:kept] + strings.TrimRight(value[kept:], " ")
	if !utf8.ValidString(value) {
		return "", "", false, errors.New("a value is not UTF-8")
	}
	return value, rest, more, nil
}

func unescape(s string) (decoded byte, size int, err error) {
	if s == "" {
		return 0, 0, errors.New(`it ends with \`)
	}
	if strings.IndexByte(` "#+,;<=>\`, s[0]) >= 0 {
		return s[0], 1, nil
	}
	if len(s) >= 2 {
		hi, lo := unhex(s[0]), unhex(s[1])
		if hi < 16 && lo < 16 {
			return hi<<4 | lo, 2, nil
		}
	}
	return 0, 0, errors.New(`\ stands before something that needs none`)
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// kinds are the short names that RFC 4514 and the specification have for
// attribute types.
var kinds = map[string]string{
	"2.5.4.3": "CN", "2.5.4.5": "SERIALNUMBER", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.17": "POSTALCODE",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

// nameOf reads a certificate's subject from its attributes, not from their text.
func nameOf(subject pkix.Name) (name, error) {
	n := name{}
	for _, a := range subject.Names {
		kind := a.Type.String()
		if short, ok := kinds[kind]; ok {
			kind = short
		}
		value, ok := a.Value.(string)
		if !ok {
			return nil, fmt.Errorf("attribute %s is not text", kind)
		}
		if err := n.add(kind, value); err != nil {
			return nil, err
		}
	}
	return n, n.complete()
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string { return gatehouse.Foreign(s, 300) }
