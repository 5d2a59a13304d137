package index

import (
	"hash/maphash"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// A package of a language that a package of the operating system brought (a
// Debian package of a Python library) is in two lists. Its flaws are the
// distribution's to report, which repairs them without a new version upstream.
// So each layer's databases are asked which of the layer's files are theirs: a
// package manager writes a file and its own database in the same layer. A file
// that a later layer replaces is nobody's again.

// owners remembers which package of the operating system installed a path, for
// the paths that may tell of packages of languages.
type owners struct {
	seed  maphash.Seed
	names []string          // of packages
	last  map[string]uint32 // package → its place in names
	paths map[uint64]uint32 // hash of a path → place in names
	asked int               // paths that were looked at
}

// ownedMax is the most paths that are remembered of one layer, 20 MiB of them,
// ownedAskedMax the most that are looked at: ten times the largest images. What
// is beyond is reported twice.
const (
	ownedMax      = 300_000
	ownedAskedMax = 10_000_000
)

func newOwners(seed maphash.Seed) *owners {
	return &owners{seed: seed, last: map[string]uint32{}, paths: map[uint64]uint32{}}
}

// add records that the package installed the file, a path from the root.
func (o *owners) add(file, pkg string) {
	if o.asked++; o.asked > ownedAskedMax {
		return
	}
	file = strings.TrimPrefix(strings.TrimPrefix(file, "."), "/")
	if pkg == "" || len(o.paths) >= ownedMax || len(pkg) > fieldMax || !isSystem(file) || !tells(file) {
		return
	}
	at, known := o.last[pkg]
	if !known {
		at = uint32(len(o.names))
		o.names = append(o.names, strings.Clone(pkg))
		o.last[o.names[at]] = at
	}
	o.paths[maphash.String(o.seed, file)] = at
}

// isSystem reports whether packages of a distribution install to a path (Filesystem
// Hierarchy Standard 3.0). Who makes the image writes the databases as well: a list
// that names the application's own folders is not believed.
func isSystem(file string) bool {
	top, rest, _ := strings.Cut(file, "/")
	switch top {
	case "bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "var":
		return true
	case "usr":
		return !strings.HasPrefix(rest, "local/")
	}
	return false
}

// of returns the package that installed name, "" for none. Databases made
// before /bin, /lib and /sbin became links into /usr name the old path.
func (o *owners) of(name string) string {
	at, ok := o.paths[maphash.String(o.seed, name)]
	if rest, usr := strings.CutPrefix(name, "usr/"); !ok && usr {
		at, ok = o.paths[maphash.String(o.seed, rest)]
	}
	if !ok {
		return ""
	}
	return o.names[at]
}

// tells reports whether a file of this name may tell of a package: by the names
// that extractors go by, and for executables, whose mode is not known here, by
// their folder or by having no extension.
func tells(name string) bool {
	base := path.Base(name)
	if !strings.Contains(base, ".") || strings.Contains(name, "bin/") || strings.Contains(name, "libexec/") {
		return true
	}
	for _, wants := range languageFiles {
		if wants(name, 0) {
			return true
		}
	}
	return false
}

// distroless images of before 2023 have no lists of files; this is what their
// Python brings beside its own package.
var distrolessFiles = map[string]string{
	"usr/lib/python2.7/argparse.egg-info":               "libpython2.7-stdlib",
	"usr/lib/python2.7/wsgiref.egg-info":                "libpython2.7-stdlib",
	"usr/lib/python2.7/lib-dynload/Python-2.7.egg-info": "libpython2.7-minimal",
}

// OwnedSets returns the sets that show in the image and tell of packages that a
// package of the operating system brought, where covered says of that package
// that its distribution's advisories are read. Their flaws are reported with
// the package of the operating system. Result is in order of Layer, then Set.
func OwnedSets(layers []gatehouse.LayerInventory, covered func(owner gatehouse.Package) bool) []HiddenSet {
	hidden := hiddenMap(layers)
	installed := installedOS(layers, hidden)
	answers := map[string]bool{}
	var owned []HiddenSet
	for i, l := range layers {
		for j, set := range l.Sets {
			owner, ok := ownerOf(set, installed)
			if !ok || hidden[HiddenSet{i, j}] {
				continue
			}
			yes, asked := answers[owner.Name]
			if !asked {
				yes = covered(owner)
				answers[owner.Name] = yes
			}
			if yes {
				owned = append(owned, HiddenSet{Layer: i, Set: j})
			}
		}
	}
	return owned
}

func hiddenMap(layers []gatehouse.LayerInventory) map[HiddenSet]bool {
	hidden := map[HiddenSet]bool{}
	for _, h := range Hidden(layers) {
		hidden[h] = true
	}
	return hidden
}

// installedOS returns the packages of the operating system that show, by name.
func installedOS(layers []gatehouse.LayerInventory, hidden map[HiddenSet]bool) map[string]gatehouse.Package {
	installed := map[string]gatehouse.Package{}
	for i, l := range layers {
		for j, set := range l.Sets {
			if len(set.Packages) == 0 || !set.Packages[0].OS() || hidden[HiddenSet{i, j}] {
				continue
			}
			for _, p := range set.Packages {
				installed[p.Name] = p
			}
		}
	}
	return installed
}

// ownerOf returns the package that brought the file of set, if it is still
// installed. The set itself never says: its databases do, and removing one is
// no way to hide a package.
func ownerOf(set gatehouse.PackageSet, installed map[string]gatehouse.Package) (gatehouse.Package, bool) {
	if len(set.Packages) == 0 || set.Packages[0].OS() {
		return gatehouse.Package{}, false
	}
	name := set.Owner
	if name == "" {
		name = distrolessFiles[set.Path]
	}
	owner, ok := installed[name]
	return owner, ok && name != ""
}
