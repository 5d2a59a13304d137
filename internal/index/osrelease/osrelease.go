// Package osrelease reads os-release(5) and the files that distributions had
// before it, into a distro.
package osrelease

import (
	"bufio"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// SizeMax is how many bytes of a file are read.
const SizeMax = 64 << 10

// Parse reads os-release: shell-like assignments, one per line. A file without
// ID is "linux", as os-release(5) says.
func Parse(r io.Reader) (*gatehouse.Distro, error) {
	values, err := assignments(r)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, errors.New("file has no assignments")
	}
	d := &gatehouse.Distro{
		ID: strings.ToLower(values["ID"]), VersionID: values["VERSION_ID"],
		Name: values["PRETTY_NAME"], Codename: values["VERSION_CODENAME"],
		IDLike: strings.Fields(strings.ToLower(values["ID_LIKE"])),
	}
	if d.ID == "" {
		d.ID = "linux"
	}
	if len(d.IDLike) == 0 {
		d.IDLike = nil
	}
	return bound(d), nil
}

func assignments(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, SizeMax))
	lines.Buffer(make([]byte, 0, 4<<10), SizeMax+1)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		switch key {
		case "ID", "VERSION_ID", "PRETTY_NAME", "VERSION_CODENAME", "ID_LIKE":
			values[key] = unquote(value)
		}
	}
	return values, lines.Err()
}

// unquote removes shell quoting as far as os-release(5) allows it.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// bound keeps values short: they are foreign.
func bound(d *gatehouse.Distro) *gatehouse.Distro {
	const fieldMax, likeMax = 256, 16
	for _, s := range []*string{&d.ID, &d.VersionID, &d.Name, &d.Codename} {
		*s = strings.ToValidUTF8((*s)[:min(len(*s), fieldMax)], "\uFFFD")
	}
	d.IDLike = d.IDLike[:min(len(d.IDLike), likeMax)]
	for i, s := range d.IDLike {
		d.IDLike[i] = strings.ToValidUTF8(s[:min(len(s), fieldMax)], "\uFFFD")
	}
	return d
}

// redHatRelease is "CentOS Linux release 7.9.2009 (Core)" and its like.
var redHatRelease = regexp.MustCompile(`^(.{1,80}?)(?: Linux)?(?: Server| Workstation)?(?: AS| ES)? release ([0-9][0-9.]*)`)

// redHatIDs maps the first word of such a line to the ID of os-release.
var redHatIDs = map[string]string{
	"almalinux": "almalinux", "rocky": "rocky", "centos": "centos", "fedora": "fedora", "oracle": "ol",
	"red": "rhel", "amazon": "amzn", "scientific": "scientific", "photon": "photon", "cbl-mariner": "mariner",
}

// ParseOld reads one of the files that name the distribution where there is no
// os-release: etc/alpine-release, etc/debian_version, etc/redhat-release and
// its siblings.
func ParseOld(name string, r io.Reader) (*gatehouse.Distro, error) {
	b, err := io.ReadAll(io.LimitReader(r, SizeMax))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	line = strings.TrimSpace(line)
	if line == "" {
		return nil, errors.New("file is empty")
	}
	switch path.Base(name) {
	case "alpine-release":
		return bound(&gatehouse.Distro{ID: "alpine", VersionID: line}), nil
	case "debian_version":
		// "12.4", or "trixie/sid" before a release has its number.
		if line[0] < '0' || line[0] > '9' {
			code, _, _ := strings.Cut(line, "/")
			return bound(&gatehouse.Distro{ID: "debian", Codename: code}), nil
		}
		major, _, _ := strings.Cut(line, ".")
		return bound(&gatehouse.Distro{ID: "debian", VersionID: major}), nil
	}
	m := redHatRelease.FindStringSubmatch(line)
	if m == nil {
		return nil, errors.New("line does not name a release")
	}
	first, _, _ := strings.Cut(strings.ToLower(m[1]), " ")
	id, ok := redHatIDs[first]
	if !ok {
		return nil, errors.New("line names an unknown distribution")
	}
	d := &gatehouse.Distro{ID: id, VersionID: m[2], Name: line}
	if id != "fedora" && id != "amzn" && id != "photon" {
		d.IDLike = []string{"rhel", "fedora"}
	}
	return bound(d), nil
}
