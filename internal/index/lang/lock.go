package lang

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// LockSizeMax is the largest lock file in bytes that is read. Those of large
// monorepos have 5 MiB.
const LockSizeMax = 16 << 20

// errTooMany says that a file lists more packages than may be kept.
var errTooMany = errors.New("the file lists more packages than may be kept")

// A lock file says what a project is built from; what is installed tells its
// own. So lock files are read in directories of source code, and in images
// only on demand.
//
// osv-scalibr's extractors of lock files are the oracle of the tests and not
// used: most find the line of each package by searching the file from its
// start, so that a file of 16 MiB takes hours; those of line formats end
// silently at a line of 64 KiB; those of TOML and requirements.txt recurse as
// deep as the file nests, which ends the process at Go's stack limit; and
// ranges (">=1.0") are taken for versions.
//
// What a lock file itself marks as needed for development only is left out, as
// are the project's own packages. What has no published version (from git, a
// directory or a URL, or a range) is a package without a version.

// lockReader reads one format. What was read before an error counts.
type lockReader func(content []byte, list *packageList) error

// lockNames are the formats that a file's base name tells.
var lockNames = map[string]struct {
	kind string // purl type of its packages
	read lockReader
}{
	"package-lock.json": {"npm", npmLock}, "npm-shrinkwrap.json": {"npm", npmLock}, "yarn.lock": {"npm", yarnLock},
	"pnpm-lock.yaml": {"npm", pnpmLock}, "bun.lock": {"npm", bunLock},
	"Pipfile.lock": {"pypi", pipfileLock}, "poetry.lock": {"pypi", pythonTOML}, "uv.lock": {"pypi", pythonTOML},
	"pdm.lock": {"pypi", pythonTOML}, "pylock.toml": {"pypi", pythonTOML},
	"go.mod": {"golang", goMod}, "Cargo.lock": {"cargo", cargoLock},
	"gradle.lockfile": {"maven", gradleLock}, "buildscript-gradle.lockfile": {"maven", gradleLock}, "pom.xml": {"maven", pomXML},
	"build.sbt.lock": {"maven", sbtLock},
	"Gemfile.lock":   {"gem", gemfileLock}, "gems.locked": {"gem", gemfileLock}, "composer.lock": {"composer", composerLock},
	"packages.lock.json": {"nuget", nugetLock}, "packages.config": {"nuget", nugetXML}, "paket.lock": {"nuget", paketLock},
	"Directory.Packages.props": {"nuget", nugetXML}, "packages.props": {"nuget", nugetXML},
	"mix.lock": {"hex", mixLock}, "rebar.lock": {"hex", rebarLock}, "pubspec.lock": {"pub", pubspecLock},
	"Package.resolved": {"swift", swiftResolved}, "Podfile.lock": {"cocoapods", podfileLock}, "conan.lock": {"conan", conanLock},
	"renv.lock": {"cran", renvLock}, "Manifest.toml": {"julia", juliaManifest}, "cpanfile.snapshot": {"cpan", cpanSnapshot},
	"cabal.project.freeze": {"hackage", cabalFreeze}, "stack.yaml.lock": {"hackage", stackLock},
}

// IsLock reports whether a path is that of a lock file. Those inside of
// installed packages are not: they say what the package's author had.
func IsLock(name string) bool {
	_, read := lockFormat(path.Base(name))
	if read == nil {
		return false
	}
	for _, dir := range []string{"node_modules/", "vendor/", "site-packages/", "dist-packages/", "gems/"} {
		if strings.HasPrefix(name, dir) || strings.Contains(name, "/"+dir) {
			return false
		}
	}
	return true
}

func lockFormat(base string) (kind string, read lockReader) {
	if f, ok := lockNames[base]; ok {
		return f.kind, f.read
	}
	switch {
	case strings.HasPrefix(base, "requirements") && strings.HasSuffix(base, ".txt"):
		return "pypi", requirements
	case strings.HasPrefix(base, "pylock.") && strings.HasSuffix(base, ".toml"):
		return "pypi", pythonTOML
	}
	return "", nil
}

// Lock reads the lock file at name, of which [IsLock] is true: at most max
// packages. Packages that were read before an error are returned with it.
func Lock(ctx context.Context, name string, r *io.SectionReader, max int) ([]gatehouse.Package, error) {
	base := path.Base(name)
	kind, read := lockFormat(base)
	if read == nil {
		return nil, ErrOther
	}
	content, err := readAll(r, LockSizeMax)
	if err != nil {
		return nil, err
	}
	list := &packageList{ctx: ctx, kind: kind, max: max, seen: map[[2]string]bool{}}
	if err := read(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), list); err != nil {
		return list.packages, fmt.Errorf("%.80s: %w", base, err)
	}
	return list.packages, nil
}

// packageList collects distinct packages of one type.
type packageList struct {
	ctx      context.Context
	kind     string
	max      int
	seen     map[[2]string]bool
	packages []gatehouse.Package
}

// add takes a package; one without a name is none. A version that is not one
// of a release is left empty.
func (l *packageList) add(name, version string, licenses ...string) error {
	name, version = strings.TrimSpace(name), strings.TrimSpace(version)
	if !isRelease(l.kind, version) {
		version = ""
	}
	if key := [2]string{name, version}; name == "" || l.seen[key] {
		return nil
	} else {
		l.seen[key] = true
	}
	if len(l.packages) >= l.max {
		return errTooMany
	}
	if len(l.packages)%256 == 0 {
		if err := l.ctx.Err(); err != nil {
			return err
		}
	}
	l.packages = append(l.packages, gatehouse.Package{Type: l.kind, Name: name, Version: version, Licenses: licenses})
	return nil
}

// isRelease tells versions from ranges, URLs and branches. In Maven and Conan
// they may begin with a letter ("r09", "Finchley.SR2", "cci.20200102").
func isRelease(kind, version string) bool {
	if kind == "maven" || kind == "conan" {
		return version != "" && !strings.ContainsAny(version, "$[](), /")
	}
	v := strings.TrimPrefix(version, "v")
	return v != "" && v[0] >= '0' && v[0] <= '9'
}

// object reads a JSON object; each must consume the value of its key.
func object(in *json.Decoder, each func(key string) error) error {
	t, err := in.Token()
	if err != nil {
		return err
	}
	if t == nil {
		return nil // null
	}
	if t != json.Delim('{') {
		return fmt.Errorf("%v stands where an object is due", clipped(t))
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		if err := each(key.(string)); err != nil { // a key is a string, or Token fails
			return err
		}
	}
	_, err = in.Token()
	return err
}

// list reads a JSON array; each must consume one element.
func list(in *json.Decoder, each func() error) error {
	t, err := in.Token()
	if err != nil {
		return err
	}
	if t == nil {
		return nil
	}
	if t != json.Delim('[') {
		return fmt.Errorf("%v stands where a list is due", clipped(t))
	}
	for in.More() {
		if err := each(); err != nil {
			return err
		}
	}
	_, err = in.Token()
	return err
}

func clipped(v any) string { return fmt.Sprintf("%.40q", fmt.Sprint(v)) }

// skip consumes a JSON value.
func skip(in *json.Decoder) error {
	var ignored json.RawMessage
	return in.Decode(&ignored)
}

// value decodes what is next and forgives fields of other types than v's: they
// are empty.
func value(in *json.Decoder, v any) error {
	err := in.Decode(v)
	if errors.As(err, new(*json.UnmarshalTypeError)) {
		return nil
	}
	return err
}

// jsonDecoder reads one document.
func jsonDecoder(content []byte) *json.Decoder { return json.NewDecoder(bytes.NewReader(content)) }

// lines calls each with every line, without its end.
func lines(content []byte, each func(line string) error) error {
	for line := range bytes.Lines(content) {
		if err := each(string(bytes.TrimRight(line, "\r\n"))); err != nil {
			return err
		}
	}
	return nil
}

// indent counts the blanks that a line begins with.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// unquote takes quotes away that YAML and TOML write round plain words.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
