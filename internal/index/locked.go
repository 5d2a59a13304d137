package index

import (
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

// withoutLocked leaves out packages that are installed below a lock file that
// lists them in the same version: node_modules beside package-lock.json. The
// lock file is where they are to be changed.
func withoutLocked(packages []gatehouse.Package) []gatehouse.Package {
	locked := map[packageKey][]string{} // folders of lock files
	for _, p := range packages {
		if !p.OS() && lang.IsLock(p.Path) {
			locked[keyOf(p)] = append(locked[keyOf(p)], path.Dir(p.Path))
		}
	}
	if len(locked) == 0 {
		return packages
	}
	return slices.DeleteFunc(packages, func(p gatehouse.Package) bool {
		if p.OS() || lang.IsLock(p.Path) {
			return false
		}
		return slices.ContainsFunc(locked[keyOf(p)], func(dir string) bool {
			return dir == "." || strings.HasPrefix(p.Path, dir+"/")
		})
	})
}
