package lang

import (
	"strings"
)

// gemfileLock reads Gemfile.lock: "    name (version[-platform])" in the
// sections of gems that come from elsewhere.
func gemfileLock(content []byte, l *packageList) error {
	return specLines(content, []string{"GEM", "GIT", "PLUGIN SOURCE"}, l)
}

// paketLock reads paket.lock of .NET, which has taken the form over.
func paketLock(content []byte, l *packageList) error {
	return specLines(content, []string{"NUGET"}, l)
}

func specLines(content []byte, sections []string, l *packageList) error {
	inside := false
	return lines(content, func(line string) error {
		switch indent(line) {
		case 0:
			if line != "" {
				inside = false
				for _, s := range sections {
					inside = inside || line == s
				}
			}
		case 4:
			name, rest, ok := strings.Cut(strings.TrimSpace(line), " (")
			if !inside || !ok {
				return nil
			}
			version, _, _ := strings.Cut(rest, ")")
			if sections[0] == "GEM" {
				version, _, _ = strings.Cut(version, "-") // platform: versions of gems have no hyphen
			}
			return l.add(name, version)
		}
		return nil
	})
}

// mixLock reads mix.lock of Elixir: `"name": {:hex, :package, "1.2.3", …`.
func mixLock(content []byte, l *packageList) error {
	return lines(content, func(line string) error {
		line = strings.TrimSpace(line)
		name, rest, ok := strings.Cut(line, `": {:`)
		if !ok || !strings.HasPrefix(name, `"`) {
			return nil
		}
		hex, ok := strings.CutPrefix(rest, "hex, :")
		if !ok {
			return l.add(name[1:], "") // from git
		}
		name, hex, _ = strings.Cut(hex, ", ")
		version, _, _ := strings.Cut(strings.TrimPrefix(hex, `"`), `"`)
		return l.add(strings.Trim(name, `"`), version)
	})
}

// rebarLock reads rebar.lock of Erlang:
// `{<<"name">>,{pkg,<<"package">>,<<"1.2.3">>},0}`.
func rebarLock(content []byte, l *packageList) error {
	return lines(content, func(line string) error {
		_, rest, ok := strings.Cut(line, `,{pkg,<<"`)
		if !ok {
			return nil
		}
		name, rest, _ := strings.Cut(rest, `">>,<<"`)
		version, _, _ := strings.Cut(rest, `">>`)
		return l.add(name, version)
	})
}

// pubspecLock reads pubspec.lock of Dart, YAML with one entry per line.
func pubspecLock(content []byte, l *packageList) error {
	section, name, version, source := "", "", "", ""
	flush := func() error {
		defer func() { name, version, source = "", "", "" }()
		if source == "sdk" || source == "path" {
			return nil
		}
		return l.add(name, version)
	}
	err := lines(content, func(line string) error {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if key == "" || key[0] == '#' {
			return nil
		}
		switch depth := indent(line); {
		case depth == 0:
			section = key
			return flush()
		case section == "packages" && depth == 2:
			if err := flush(); err != nil {
				return err
			}
			name = unquote(key)
		case section == "packages" && depth == 4 && key == "version":
			version = unquote(value)
		case section == "packages" && depth == 4 && key == "source":
			source = unquote(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// podfileLock reads Podfile.lock of CocoaPods: "  - Name/Part (1.2.3)" under
// PODS.
func podfileLock(content []byte, l *packageList) error {
	inside := false
	return lines(content, func(line string) error {
		if line != "" && indent(line) == 0 {
			inside = line == "PODS:"
			return nil
		}
		item, ok := strings.CutPrefix(line, "  - ")
		if !inside || !ok {
			return nil
		}
		name, rest, ok := strings.Cut(unquote(strings.TrimSuffix(item, ":")), " (")
		if !ok {
			return nil
		}
		name, _, _ = strings.Cut(name, "/")
		version, _, _ := strings.Cut(rest, ")")
		return l.add(name, version)
	})
}

// cpanSnapshot reads cpanfile.snapshot of Perl's Carton: "  Name-1.23".
func cpanSnapshot(content []byte, l *packageList) error {
	inside := false
	return lines(content, func(line string) error {
		if line != "" && indent(line) == 0 && line[0] != '#' {
			inside = line == "DISTRIBUTIONS"
			return nil
		}
		if !inside || indent(line) != 2 {
			return nil
		}
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, '-')
		if i <= 0 {
			return nil
		}
		return l.add(line[:i], line[i+1:])
	})
}

// cabalFreeze reads cabal.project.freeze of Haskell: "any.name ==1.2.3,".
func cabalFreeze(content []byte, l *packageList) error {
	return lines(content, func(line string) error {
		line = strings.TrimSpace(strings.TrimPrefix(line, "constraints:"))
		constraint, ok := strings.CutPrefix(line, "any.")
		if !ok {
			return nil
		}
		name, version, _ := strings.Cut(constraint, " ==")
		return l.add(name, strings.TrimSuffix(version, ","))
	})
}

// stackLock reads stack.yaml.lock of Haskell: "hackage: name-1.2.3@sha256:…".
func stackLock(content []byte, l *packageList) error {
	return lines(content, func(line string) error {
		_, at, ok := strings.Cut(line, "hackage: ")
		if !ok {
			return nil
		}
		at, _, _ = strings.Cut(unquote(at), "@")
		i := strings.LastIndexByte(at, '-')
		if i <= 0 {
			return nil
		}
		return l.add(at[:i], at[i+1:])
	})
}
