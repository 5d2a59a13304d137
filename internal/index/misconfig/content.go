package misconfig

import (
	"bytes"
	"path"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// ContentMax is the largest file that Content is given, in bytes.
	ContentMax = 1 << 20
	// linesMax and fileMax bound what one file may cost and tell.
	linesMax = 20_000
	fileMax  = 100
)

// WantsContent reports whether the content of a file is looked at.
func WantsContent(name string) bool {
	switch name {
	case "etc/passwd", "etc/shadow", "etc/sudoers", "etc/ssh/sshd_config":
		return true
	}
	return strings.HasPrefix(name, "etc/sudoers.d/") || strings.HasPrefix(name, "etc/ssh/sshd_config.d/") ||
		path.Base(name) == ".npmrc" && !inPackage(name)
}

// Content looks at the content of a file that WantsContent names.
func Content(name string, b []byte) []gatehouse.Finding {
	switch {
	case name == "etc/passwd":
		return eachLine(b, passwdLine)
	case name == "etc/shadow":
		return eachLine(b, shadowLine)
	case strings.HasPrefix(name, "etc/sudoers"):
		return eachLine(b, sudoersLine)
	case strings.HasPrefix(name, "etc/ssh/"):
		return eachLine(b, sshdLine)
	}
	if bytes.Contains(b, []byte("_authToken")) || bytes.Contains(b, []byte("_password")) || bytes.Contains(b, []byte("_auth=")) {
		return []gatehouse.Finding{credentialFile.file("")}
	}
	return nil
}

// eachLine asks judge about each line; one that is not printable text is none.
func eachLine(b []byte, judge func(line string) (c Check, excerpt string, ok bool)) []gatehouse.Finding {
	var out []gatehouse.Finding
	n := 0
	for line := range bytes.Lines(b) {
		if n++; n > linesMax || len(out) >= fileMax {
			break
		}
		c, excerpt, ok := judge(strings.TrimRight(string(line[:min(len(line), 4096)]), "\r\n"))
		if !ok {
			continue
		}
		f := c.file(excerpt)
		f.Location.StartLine, f.Location.EndLine = n, n
		out = append(out, f)
	}
	return out
}

// passwdLine reads passwd(5): name:password:uid:gid:gecos:home:shell.
func passwdLine(line string) (Check, string, bool) {
	f := strings.Split(line, ":")
	if len(f) < 4 || f[0] == "" || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], "+") || strings.HasPrefix(f[0], "-") {
		return Check{}, "", false
	}
	id, err := strconv.ParseUint(f[2], 10, 64)
	switch {
	case f[1] == "":
		return noPassword, "account " + f[0], true
	case isHash(f[1]):
		return hasPassword, "account " + f[0], true
	case err == nil && id == 0 && f[0] != "root":
		return secondRoot, "account " + f[0], true
	}
	return Check{}, "", false
}

// shadowLine reads shadow(5): name:password:….
func shadowLine(line string) (Check, string, bool) {
	f := strings.Split(line, ":")
	if len(f) < 2 || f[0] == "" || strings.HasPrefix(f[0], "#") {
		return Check{}, "", false
	}
	switch {
	case f[1] == "":
		return noPassword, "account " + f[0], true
	case isHash(f[1]):
		return hasPassword, "account " + f[0], true
	}
	return Check{}, "", false
}

// isHash reports whether a password field lets somebody in: crypt(5) in any of
// its forms. "x", "*" and what begins with "!" do not.
func isHash(field string) bool {
	const desLength = 13
	return strings.HasPrefix(field, "$") && strings.Count(field, "$") >= 3 || strings.HasPrefix(field, "_") && len(field) == 20 ||
		len(field) == desLength && !strings.ContainsAny(field, "!*:")
}

func sudoersLine(line string) (Check, string, bool) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") || !strings.Contains(line, "NOPASSWD:") {
		return Check{}, "", false
	}
	who, rest, _ := strings.Cut(line, " ")
	_, commands, _ := strings.Cut(rest, "NOPASSWD:")
	return sudoNoPassword, who, strings.HasPrefix(strings.TrimSpace(commands), "ALL")
}

func sshdLine(line string) (Check, string, bool) {
	f := strings.Fields(strings.ToLower(strings.Replace(line, "=", " ", 1)))
	if len(f) < 2 || f[1] != "yes" || f[0] != "permitrootlogin" && f[0] != "permitemptypasswords" {
		return Check{}, "", false
	}
	return sshdSettings, f[0] + " yes", true
}
