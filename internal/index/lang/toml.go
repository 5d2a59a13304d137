package lang

import "strings"

// tomlTables reads TOML as programs write it into lock files: a table's head, a
// key or an element of a list per line. each is called at the end of every
// table with its head ("[package]" for [[package]]) and the values of its keys:
// strings without quotes, anything else as written, lists of several lines as
// "[".
func tomlTables(content []byte, each func(head string, values map[string]string) error) error {
	head, values := "", map[string]string{}
	multi := "" // the quotes that end a text of several lines
	err := lines(content, func(line string) error {
		if multi != "" {
			if strings.Contains(line, multi) {
				multi = ""
			}
			return nil
		}
		switch {
		case line == "" || line[0] == '#' || line[0] == ' ' || line[0] == '\t':
			return nil
		case line[0] == '[':
			if err := each(head, values); err != nil {
				return err
			}
			head, _, _ = strings.Cut(line[1:], " #")
			head = strings.TrimSuffix(strings.TrimSpace(head), "]")
			values = map[string]string{}
			return nil
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil
		}
		value = strings.TrimSpace(value)
		for _, quotes := range []string{`"""`, `'''`} {
			if rest, ok := strings.CutPrefix(value, quotes); ok && !strings.Contains(rest, quotes) {
				multi = quotes
			}
		}
		const keysMax = 64
		if len(values) < keysMax {
			values[strings.TrimSpace(key)] = tomlValue(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(head, values)
}

// tomlValue returns a string without quotes, and anything else as written.
func tomlValue(s string) string {
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		if i := strings.IndexByte(s[1:], s[0]); i >= 0 {
			return s[1 : i+1]
		}
	}
	return s
}

// pythonTOML reads poetry.lock, uv.lock, pdm.lock ([[package]]) and pylock.toml
// (PEP 751, [[packages]]).
func pythonTOML(content []byte, l *packageList) error {
	return tomlTables(content, func(head string, v map[string]string) error {
		if head != "[package]" && head != "[packages]" || pythonDev(v) {
			return nil
		}
		for _, where := range []string{"virtual", "editable", "directory"} {
			if strings.HasPrefix(strings.TrimLeft(v["source"], "{ "), where+" ") { // uv's own project
				return nil
			}
			if v[where] != "" && v["version"] == "" { // pylock's
				return nil
			}
		}
		return l.add(v["name"], v["version"])
	})
}

// pythonDev reports whether a package is in groups for development only. Lists
// that span lines, and files that name no groups, say nothing.
func pythonDev(v map[string]string) bool {
	if v["category"] == "dev" {
		return true // poetry 1
	}
	groups := v["groups"]
	if !strings.HasSuffix(groups, "]") || groups == "[]" {
		return false
	}
	for group := range strings.SplitSeq(strings.Trim(groups, "[]"), ",") {
		switch unquote(group) {
		case "dev", "test", "tests", "docs", "lint", "typing":
		default:
			return false
		}
	}
	return true
}

func cargoLock(content []byte, l *packageList) error {
	return tomlTables(content, func(head string, v map[string]string) error {
		if head != "[package]" {
			return nil
		}
		return l.add(v["name"], v["version"])
	})
}

// juliaManifest reads Manifest.toml. What has no version is of Julia itself.
func juliaManifest(content []byte, l *packageList) error {
	return tomlTables(content, func(head string, v map[string]string) error {
		name, ok := strings.CutPrefix(head, "[deps.")
		if !ok {
			name, ok = strings.CutPrefix(head, "[") // before manifest format 2
		}
		name = strings.TrimSuffix(name, "]")
		if !ok || v["version"] == "" || v["uuid"] == "" {
			return nil
		}
		return l.add(name, v["version"])
	})
}
