package lang

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// requirements reads pip's requirements.txt, which is a lock file as far as its
// lines pin one version ("name==1.2"). Files that it names (-r) are read by
// themselves where they have the name of one.
func requirements(content []byte, l *packageList) error {
	var whole strings.Builder // of a requirement that goes on over several lines
	take := func() error {
		defer whole.Reset()
		name, version := requirement(whole.String())
		return l.add(name, version)
	}
	err := lines(plainText(content), func(line string) error {
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			whole.WriteString(rest)
			return nil
		}
		whole.WriteString(line)
		return take()
	})
	if err != nil {
		return err
	}
	return take()
}

// requirement parses one (PEP 508 with pip's options). A range is no version.
func requirement(s string) (name, version string) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '-' || s[0] == '.' || s[0] == '/' {
		return "", "" // an option, a directory
	}
	s, _, _ = strings.Cut(s, ";")   // environment
	s, _, _ = strings.Cut(s, " --") // --hash
	end := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	if end < 0 {
		return s, ""
	}
	name, rest := s[:end], strings.TrimSpace(s[end:])
	if strings.HasPrefix(rest, "[") { // extras
		_, rest, _ = strings.Cut(rest, "]")
		rest = strings.TrimSpace(rest)
	}
	if strings.HasPrefix(rest, ":") { // a URL
		return "", ""
	}
	pin, exact := strings.CutPrefix(strings.Trim(rest, "()"), "==")
	pin = strings.TrimSpace(strings.TrimPrefix(pin, "="))
	if !exact || strings.ContainsAny(pin, "*, \t") {
		return name, ""
	}
	return name, pin
}

// plainText turns UTF-16 with a byte order mark, which PowerShell's redirection
// makes of "pip freeze", into UTF-8.
func plainText(content []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(content, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(content, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return content
	}
	units := make([]uint16, 0, len(content)/2)
	for i := 2; i+1 < len(content); i += 2 {
		units = append(units, order.Uint16(content[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}

// pipfileLock reads the packages of Pipfile.lock that are not for development.
func pipfileLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	return object(in, func(key string) error {
		if key == "_meta" || key == "develop" {
			return skip(in)
		}
		return object(in, func(name string) error {
			var p struct {
				Version string `json:"version"`
			}
			if err := value(in, &p); err != nil {
				return err
			}
			return l.add(name, strings.TrimPrefix(p.Version, "=="))
		})
	})
}
