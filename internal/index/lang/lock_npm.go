package lang

import (
	"encoding/json"
	"errors"
	"strings"
)

// npmDepthMax is how deep dependencies nest in a lock file of npm 6 and
// before. npm itself ends at the longest path that a system allows.
const npmDepthMax = 100

// npmLock reads package-lock.json and npm-shrinkwrap.json, of version 1
// (dependencies in dependencies) and of versions 2 and 3 (packages by path).
func npmLock(content []byte, l *packageList) error {
	var version1 json.RawMessage
	packages := false
	in := jsonDecoder(content)
	err := object(in, func(key string) error {
		switch key {
		case "packages":
			packages = true
			return object(in, func(at string) error { return npmLockPackage(in, at, l) })
		case "dependencies":
			return in.Decode(&version1)
		}
		return skip(in)
	})
	if err != nil || packages || version1 == nil {
		return err // version 2 has both, and the paths say more
	}
	return npmLockDependencies(version1, l, 1)
}

func npmLockPackage(in *json.Decoder, at string, l *packageList) error {
	var p struct {
		Name    string          `json:"name"`
		Version string          `json:"version"`
		License json.RawMessage `json:"license"`
		Dev     bool            `json:"dev"`
		Link    bool            `json:"link"`
	}
	if err := value(in, &p); err != nil {
		return err
	}
	const dir = "node_modules/"
	i := strings.LastIndex(at, dir)
	if i < 0 || p.Link || p.Dev {
		return nil // the project and its workspaces, a link to one
	}
	if p.Name == "" { // it is given for an alias only
		p.Name = at[i+len(dir):]
	}
	return l.add(p.Name, p.Version, npmLicenses(p.License)...)
}

func npmLockDependencies(raw json.RawMessage, l *packageList, depth int) error {
	if depth > npmDepthMax {
		return errors.New("dependencies are nested too deep")
	}
	in := jsonDecoder(raw)
	return object(in, func(name string) error {
		var d struct {
			Version      string          `json:"version"`
			Dev          bool            `json:"dev"`
			Dependencies json.RawMessage `json:"dependencies"`
		}
		if err := value(in, &d); err != nil {
			return err
		}
		if d.Dev {
			return nil
		}
		version := d.Version
		if alias, ok := strings.CutPrefix(version, "npm:"); ok {
			name, version = splitAt(alias)
		}
		if err := l.add(name, version); err != nil {
			return err
		}
		if d.Dependencies == nil {
			return nil
		}
		return npmLockDependencies(d.Dependencies, l, depth+1)
	})
}

// splitAt parses "name@rest" and "@scope/name@rest".
func splitAt(s string) (name, rest string) {
	if s == "" {
		return "", ""
	}
	i := strings.IndexByte(s[1:], '@')
	if i < 0 {
		return s, ""
	}
	return s[:i+1], s[i+2:]
}

// yarnLock reads the lock files of yarn 1 (its own format) and of yarn 2 and
// later (YAML): blocks whose head lists what was asked for.
func yarnLock(content []byte, l *packageList) error {
	var name, version, resolution string
	local := true
	flush := func() error {
		defer func() { name, version, resolution, local = "", "", "", true }()
		if resolution != "" { // yarn 2: the package itself, whatever alias asked for it
			real, where := splitAt(resolution)
			name = real
			local = strings.HasPrefix(where, "workspace:") || strings.HasPrefix(where, "link:") || strings.HasPrefix(where, "portal:")
		}
		if local {
			return nil
		}
		return l.add(name, version)
	}
	err := lines(content, func(line string) error {
		switch {
		case line == "" || line[0] == '#':
			return nil
		case line[0] != ' ':
			if err := flush(); err != nil {
				return err
			}
			first, _, _ := strings.Cut(strings.TrimSuffix(line, ":"), ", ")
			first = strings.Trim(first, `"`)
			wanted := ""
			name, wanted = splitAt(first)
			if alias, ok := strings.CutPrefix(wanted, "npm:"); ok && strings.LastIndexByte(alias, '@') > 0 {
				name, _ = splitAt(alias)
			}
			local = name == "__metadata" || strings.HasPrefix(wanted, "link:") || strings.HasPrefix(wanted, "workspace:")
		case indent(line) == 2:
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch strings.TrimSuffix(key, ":") {
			case "version":
				version = unquote(value)
			case "resolution":
				resolution = unquote(value)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// pnpmLock reads pnpm-lock.yaml of versions 5 to 9, which pnpm writes with one
// entry per line: packages by path ("/lodash/4.17.21", "/lodash@4.17.21(x@1)",
// "lodash@4.17.21").
func pnpmLock(content []byte, l *packageList) error {
	section, old, known := "", false, false
	var name, version string
	dev := false
	flush := func() error {
		defer func() { name, version, dev = "", "", false }()
		if dev {
			return nil
		}
		return l.add(name, version)
	}
	err := lines(content, func(line string) error {
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' {
			return nil
		}
		key, value, _ := strings.Cut(text, ": ")
		switch depth := indent(line); {
		case depth == 0:
			if err := flush(); err != nil {
				return err
			}
			section = strings.TrimSuffix(key, ":")
			if section == "lockfileVersion" {
				known = true
				old = strings.HasPrefix(unquote(value), "5")
			}
		case section == "packages" && depth == 2:
			if err := flush(); err != nil {
				return err
			}
			name, version = pnpmPath(unquote(strings.TrimSuffix(key, ":")), old)
		case section == "packages" && depth == 4:
			switch key {
			case "name":
				name = unquote(value)
			case "version":
				version = unquote(value)
			case "dev":
				dev = value == "true"
			}
		}
		return nil
	})
	if err == nil && !known {
		err = errors.New("it has no lockfileVersion")
	}
	if err != nil {
		return err
	}
	return flush()
}

func pnpmPath(at string, old bool) (name, version string) {
	at, _, _ = strings.Cut(at, "(") // peers
	if strings.HasPrefix(at, "file:") || strings.HasPrefix(at, "link:") {
		return "", ""
	}
	at = strings.TrimPrefix(at, "/")
	if !old {
		return splitAt(at)
	}
	i := strings.LastIndexByte(at, '/')
	if i < 0 {
		return at, ""
	}
	name, version = at[:i], at[i+1:]
	version, _, _ = strings.Cut(version, "_") // peers
	if j := strings.IndexByte(name, '@'); j > 0 && name[j-1] == '/' {
		name = name[j:] // behind another registry's host
	} else if !strings.HasPrefix(name, "@") {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	return name, version
}

// bunLock reads bun.lock: JSON with trailing commas, whose packages are lists
// that begin with "name@version".
func bunLock(content []byte, l *packageList) error {
	in := jsonDecoder(plainJSON(content))
	return object(in, func(key string) error {
		if key != "packages" {
			return skip(in)
		}
		return object(in, func(string) error {
			var first json.RawMessage
			err := list(in, func() error {
				if first == nil {
					return in.Decode(&first)
				}
				return skip(in)
			})
			name, version := splitAt(text(first))
			if err != nil || strings.HasPrefix(version, "workspace:") {
				return err
			}
			return l.add(name, version)
		})
	})
}

// plainJSON takes comments and trailing commas out of JSON.
func plainJSON(in []byte) []byte {
	out := make([]byte, 0, len(in))
	comma := -1 // where in out a comma stands that only blanks have followed
	for i := 0; i < len(in); i++ {
		switch c := in[i]; {
		case c == '"':
			end := i + 1
			for end < len(in) && in[end] != '"' {
				if in[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(in))
			out = append(out, in[i:end]...)
			i, comma = end-1, -1
		case c == '/' && i+1 < len(in) && in[i+1] == '/':
			for i+1 < len(in) && in[i+1] != '\n' {
				i++
			}
		case c == '/' && i+1 < len(in) && in[i+1] == '*':
			for i += 2; i+1 < len(in) && (in[i] != '*' || in[i+1] != '/'); i++ {
			}
			i++
		case c == ',':
			comma = len(out)
			out = append(out, c)
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			out = append(out, c)
		default:
			if (c == '}' || c == ']') && comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
			out = append(out, c)
		}
	}
	return out
}
