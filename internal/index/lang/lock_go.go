package lang

import (
	"fmt"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// goModSizeMax is the largest go.mod in bytes that is read: its syntax tree
// takes a hundred times as much.
const goModSizeMax = 1 << 20

// goMod reads the modules that go.mod requires, after its replacements. The
// standard library is not among them: the go line names the oldest release that
// will do and not the one that builds.
//
// Before Go 1.17 go.mod did not list what is needed indirectly; of such modules
// only the direct requirements are found.
func goMod(content []byte, l *packageList) error {
	if len(content) > goModSizeMax {
		return fmt.Errorf("%d bytes are more than %d", len(content), goModSizeMax)
	}
	f, err := modfile.Parse("go.mod", content, nil)
	if err != nil {
		// What a newer Go has added to the language does not hide the rest.
		lax, laxErr := modfile.ParseLax("go.mod", content, nil)
		if laxErr != nil {
			return err
		}
		f = lax
	}
	replaced := map[module.Version]module.Version{}
	for _, to := range f.Replace {
		replaced[to.Old] = to.New
	}
	for _, r := range f.Require {
		mod := r.Mod
		if to, ok := replaced[mod]; ok {
			mod = to
		} else if to, ok := replaced[module.Version{Path: mod.Path}]; ok {
			mod = to
		}
		if isLocalModule(mod.Path) {
			continue
		}
		if err := l.add(mod.Path, strings.TrimPrefix(mod.Version, "v")); err != nil {
			return err
		}
	}
	return err
}

// isLocalModule reports whether a replacement is a directory.
func isLocalModule(path string) bool {
	return strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../") || strings.HasPrefix(path, "/") || path == "." || path == ".."
}
