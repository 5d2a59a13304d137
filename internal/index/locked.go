package index

import (
	"path"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

// withoutLocked leaves out packages that are installed below a lock file that
// lists them in the same version: node_modules beside package-lock.json. The
// lock file is where they are to be changed.
func withoutLocked(packages []gatehouse.Package) []gatehouse.Package {
	type place struct {
		what packageKey
		dir  string // of the lock file, "." for the root
	}
	locked := map[place]bool{}
	for _, p := range packages {
		if !p.OS() && lang.IsLock(p.Path) {
			locked[place{keyOf(p), path.Dir(p.Path)}] = true
		}
	}
	if len(locked) == 0 {
		return packages
	}
	return slices.DeleteFunc(packages, func(p gatehouse.Package) bool {
		if p.OS() || lang.IsLock(p.Path) {
			return false
		}
		for dir := range parents(p.Path) {
			if locked[place{keyOf(p), dir}] {
				return true
			}
		}
		return locked[place{keyOf(p), "."}]
	})
}
