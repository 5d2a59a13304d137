package report

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// group is a part of the target whose packages one person looks after: the
// operating system, the packages of one language, one lock file or program.
type group struct {
	name  string // of the target in Trivy's words: "app:1 (debian 12)", "Node.js", "usr/bin/app"
	class string // "os-pkgs" or "lang-pkgs"
	kind  string // Trivy's type: "debian", "node-pkg", "gobinary"
	paths bool   // its packages stand at different places
	list  []Finding
}

// installed are the types whose packages each have a file of their own, so that
// a group per file would be one per package.
var installed = map[string]struct{ title, kind string }{
	"npm": {"Node.js", "node-pkg"}, "pypi": {"Python", "python-pkg"}, "gem": {"Ruby", "gemspec"}, "maven": {"Java", "jar"},
}

// kinds are Trivy's names of what stands in one file with many packages.
var kinds = []struct{ name, kind string }{
	{"package-lock.json", "npm"}, {"yarn.lock", "yarn"}, {"pnpm-lock.yaml", "pnpm"}, {"go.mod", "gomod"}, {"Cargo.lock", "cargo"},
	{"poetry.lock", "poetry"}, {"Pipfile.lock", "pipenv"}, {"requirements.txt", "pip"}, {"uv.lock", "uv"}, {"Gemfile.lock", "bundler"},
	{"composer.lock", "composer"}, {"installed.json", "composer-vendor"}, {"pom.xml", "pom"}, {"gradle.lockfile", "gradle"},
	{"packages.lock.json", "nuget"}, {"packages.config", "packages-config"}, {"mix.lock", "hex"}, {"pubspec.lock", "pub"},
	{"Podfile.lock", "cocoapods"}, {"Package.resolved", "swift"}, {"conan.lock", "conan"}, {"bun.lock", "bun"},
}

// operating reports whether a purl type is an operating system's.
func operating(purlType string) bool {
	return purlType == "deb" || purlType == "apk" || purlType == "rpm"
}

// groupOf names the group of a package.
func groupOf(r Report, p Package) group {
	if operating(p.Type) {
		return group{name: targetName(r), class: "os-pkgs", kind: r.OS.Family}
	}
	base := path.Base(p.Path)
	for _, k := range kinds {
		if base == k.name {
			return group{name: p.Path, class: "lang-pkgs", kind: k.kind}
		}
	}
	if g, ok := installed[p.Type]; ok {
		return group{name: g.title, class: "lang-pkgs", kind: g.kind, paths: true}
	}
	kind := p.Type
	switch {
	case p.Type == "golang":
		kind = "gobinary"
	case p.Type == "cargo":
		kind = "rustbinary"
	case strings.HasSuffix(base, ".deps.json"):
		kind = "dotnet-core"
	}
	return group{name: cmp.Or(p.Path, p.Type), class: "lang-pkgs", kind: kind}
}

// groupsOf divides findings of packages into groups: the operating system
// first, then by name; the order within a group stays.
func groupsOf(r Report, list []Finding) []group {
	var out []group
	at := map[string]int{}
	for _, f := range list {
		g := groupOf(r, f.Package)
		i, ok := at[g.class+g.name]
		if !ok {
			i = len(out)
			at[g.class+g.name] = i
			out = append(out, g)
		}
		out[i].list = append(out[i].list, f)
	}
	slices.SortStableFunc(out, func(a, b group) int {
		return cmp.Or(-cmp.Compare(a.class, b.class), cmp.Compare(a.name, b.name))
	})
	return out
}
