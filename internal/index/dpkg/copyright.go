package dpkg

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
)

const (
	// licensesMax is the most licences of one package, licenseMax the longest
	// name in bytes of one.
	licensesMax = 32
	licenseMax  = 200
)

// commonLicenses is how a copyright file in free text names a licence: by the
// copy of it that Debian has (Debian Policy, 12.5).
var commonLicenses = []byte("/usr/share/common-licenses/")

func isLicenseRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '+' || r == '-'
}

// CopyrightPackage returns the package whose copyright file that path is of, ""
// if it is none.
func CopyrightPackage(path string) string {
	rest, ok := strings.CutPrefix(path, "usr/share/doc/")
	if !ok {
		return ""
	}
	name, ok := strings.CutSuffix(rest, "/copyright")
	if !ok || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// Copyright reads the licences that a copyright file names: in the
// machine-readable form (copyright-format 1.0, DEP-5) those of all files but the
// packaging's, in free text those that it refers to. They are in the words of
// Debian ("GPL-2+", "Expat"), sorted.
func Copyright(r io.Reader) ([]string, error) {
	lines := bufio.NewReaderSize(r, pathLineMax)
	machine, packaging, first := false, false, true
	var found []string
	add := func(name string) {
		name = strings.TrimSpace(name)
		if name != "" && len(name) <= licenseMax && len(found) < licensesMax && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for {
		line, _, err := readLine(lines)
		if err == io.EOF {
			slices.Sort(found)
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if machine && len(line) > 0 && line[0] == ' ' {
			continue // text
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		if first && len(line) > 0 {
			first = false
			machine = bytes.EqualFold(key, []byte("Format")) && bytes.Contains(value, []byte("copyright-format"))
		}
		switch {
		case len(line) == 0:
			packaging = false
		case machine && bytes.EqualFold(key, []byte("Files")):
			packaging = string(bytes.TrimSpace(value)) == "debian/*"
		case machine && bytes.EqualFold(key, []byte("License")):
			if !packaging {
				add(string(value))
			}
		case !machine:
			for _, rest, ok := bytes.Cut(line, commonLicenses); ok; _, rest, ok = bytes.Cut(rest, commonLicenses) {
				end := bytes.IndexFunc(rest, func(r rune) bool { return !isLicenseRune(r) })
				if end < 0 {
					end = len(rest)
				}
				add(strings.TrimRight(string(rest[:end]), "._-")) // the sentence goes on
			}
		}
	}
}
