package lang

import (
	"strings"

	"golang.org/x/mod/modfile"
)

// goMod reads the modules that go.mod requires, after its replacements. The
// standard library is not among them: the go line names the oldest release that
// will do and not the one that builds.
//
// Before Go 1.17 go.mod did not list what is needed indirectly; of such modules
// only the direct requirements are found.
func goMod(content []byte, l *packageList) error {
	f, err := modfile.Parse("go.mod", content, nil)
	if err != nil {
		// What a newer Go has added to the language does not hide the rest.
		lax, laxErr := modfile.ParseLax("go.mod", content, nil)
		if laxErr != nil {
			return err
		}
		f = lax
	}
	for _, r := range f.Require {
		mod := r.Mod
		for _, to := range f.Replace {
			if to.Old.Path == r.Mod.Path && (to.Old.Version == "" || to.Old.Version == r.Mod.Version) {
				mod = to.New
			}
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
