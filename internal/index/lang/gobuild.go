package lang

import (
	"debug/buildinfo"
	"errors"
	"io"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// goPackages returns the main module, its dependencies and the standard
// library, the latter as package "stdlib", as Go's vulnerability database
// calls it; nothing where the build information cannot be read. Versions have
// no "v". A dependency that a directory replaces is not a package.
//
// osv-scalibr's extractor says no more than debug/buildinfo and leaves out how
// the program was linked.
func goPackages(r *io.SectionReader) ([]gatehouse.Package, error) {
	b := &budget{r: r, left: goReadMax}
	info, err := buildinfo.Read(b)
	if b.spent {
		return nil, errors.New("build information of Go needs more reading than is allowed")
	}
	if err != nil {
		return nil, nil
	}
	platform := goPlatform(info)
	add := func(list []gatehouse.Package, name, version string) []gatehouse.Package {
		return append(list, gatehouse.Package{Type: "golang", Name: name, Version: strings.TrimPrefix(version, "v"), Arch: platform})
	}
	var packages []gatehouse.Package
	if info.GoVersion != "" {
		packages = add(packages, "stdlib", goRelease(info.GoVersion))
	}
	if info.Main.Path != "" {
		packages = add(packages, info.Main.Path, goMainVersion(info))
	}
	for _, d := range info.Deps {
		if d.Replace != nil && d.Replace.Path != "" {
			d = d.Replace
		}
		if d.Path == "" || isLocalModule(d.Path) {
			continue
		}
		version := d.Version
		if version == "(devel)" { // a module of the same workspace
			version = ""
		}
		packages = add(packages, d.Path, version)
	}
	return packages, nil
}

// goWord is what GOOS and GOARCH look like.
var goWord = regexp.MustCompile(`^[a-z0-9]{1,16}$`)

// goPlatform returns the GOOS/GOARCH that a program was built for, to which
// Go's vulnerability database limits some flaws; "" where it does not tell.
func goPlatform(info *debug.BuildInfo) string {
	words := map[string]string{}
	for _, s := range info.Settings {
		if goWord.MatchString(s.Value) {
			words[s.Key] = s.Value
		}
	}
	if words["GOOS"] == "" || words["GOARCH"] == "" {
		return ""
	}
	return words["GOOS"] + "/" + words["GOARCH"]
}

// goRelease returns the release of a toolchain: "go1.22.1 X:boringcrypto" is
// 1.22.1, and "devel go1.23-abcdef" is none.
func goRelease(version string) string {
	version, _, _ = strings.Cut(version, " ")
	version = strings.TrimPrefix(version, "go")
	if version == "" || version[0] < '0' || version[0] > '9' {
		return ""
	}
	return version
}

// goMainVersion returns the version of the program itself: the main module's,
// as "go install" and, since Go 1.24, tags of the working tree set it, and else
// what the linker was told to write into a variable called version.
//
// It is empty where neither says. A revision is no version: v0.0.0-…, which Go
// makes of one without a tag, would be before every repair.
func goMainVersion(info *debug.BuildInfo) string {
	version, _, _ := strings.Cut(info.Main.Version, "+dirty")
	if version != "" && version != "(devel)" && !strings.HasPrefix(version, "v0.0.0-") {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "-ldflags" {
			return linkedVersion(s.Value, info.Main.Path)
		}
	}
	return ""
}

// releaseVersion is what a released version looks like.
var releaseVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+(\.[0-9]+)?([-+][0-9A-Za-z.+-]*)?$`)

// linkedVersion finds -X PACKAGE.VARIABLE=VALUE in the linker's flags. Variables
// of package main count before those of the module's other packages; those of
// dependencies do not, and two that differ prove nothing.
func linkedVersion(flags, module string) string {
	found := [2]map[string]bool{{}, {}}
	const wordsMax = 1000
	words := strings.Fields(strings.NewReplacer(`"`, " ", `'`, " ", "-X=", "-X ").Replace(flags))
	for i := 0; i+1 < len(words) && i < wordsMax; i++ {
		if words[i] != "-X" {
			continue
		}
		name, value, ok := strings.Cut(words[i+1], "=")
		dot := strings.LastIndexByte(name, '.')
		if !ok || dot < 0 || !releaseVersion.MatchString(value) {
			continue
		}
		switch strings.ToLower(name[dot+1:]) {
		case "version", "ver", "appversion", "buildversion", "releaseversion", "gitversion", "tag", "gittag", "buildtag":
		default:
			continue
		}
		pkg := name[:dot]
		switch {
		case pkg == "main":
			found[0][value] = true
		case pkg == module || strings.HasPrefix(pkg, module+"/"):
			found[1][value] = true
		}
	}
	for _, versions := range found {
		if len(versions) > 1 {
			return ""
		}
		for v := range versions {
			return v
		}
	}
	return ""
}
