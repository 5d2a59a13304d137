package index

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// Compose lays the layers of an image over each other, lowest first, and
// returns what shows on top. It is a pure function of its arguments. Findings
// are those of the files that show, secrets also of those that do not
// (Location.Deleted), and those of the configuration.
//
// A package of an operating system's database belongs to the layer where this
// name, version and architecture appeared and has stayed since, found by
// comparing the databases of successive layers at the same path; any other
// package belongs to the layer of its file. The distribution is that of the
// os-release that shows. A package of a language says which package of the
// operating system brought it (Owner); both are listed.
//
// The inventory is not Complete when a layer is not, when the layers were not
// all indexed by the same version, when the configuration declares other
// diffIDs than were computed (see [CheckDiffIDs]), when there are packages of
// an operating system that nothing names, a named one without any package, or
// a package database that is found through a symbolic link only.
func Compose(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig, subject gatehouse.Digest) gatehouse.Inventory {
	inv := gatehouse.Inventory{Subject: subject, Packages: []gatehouse.Package{}}
	hidden := hiddenMap(layers)
	installed := installedOS(layers, hidden)
	licenses := licensesOf(layers)
	origins := originsOf(layers)
	var distros []gatehouse.PackageSet
	for i, l := range layers {
		for j, set := range l.Sets {
			if hidden[HiddenSet{i, j}] {
				continue
			}
			if set.Distro != nil {
				distros = append(distros, set)
			}
			owner, _ := ownerOf(set, installed)
			for _, p := range set.Packages {
				p.Path, p.Layer, p.Owner = set.Path, l.DiffID, owner.Name
				if p.OS() {
					p.Layer = origins.of(i, set.Path, p)
				}
				if p.Type == "deb" && len(p.Licenses) == 0 {
					p.Licenses = licenses[p.Name]
				}
				inv.Packages = append(inv.Packages, p)
			}
		}
	}
	siblingLicenses(inv.Packages)
	inv.Packages = sortPackages(inv.Packages)
	inv.Packages = withoutLocked(inv.Packages)
	inv.Distro = visibleDistro(distros)
	inv.Distro.ContentSets = visibleContentSets(inv.Distro, distros)
	inv.Findings, inv.Files = attribute(layers)
	if !isDirectory(layers, cfg) {
		inv.Findings = append(inv.Findings, configFindings(cfg)...)
	}
	inv.Layers = Origins(layers, cfg)
	inv.Indexer, inv.Incomplete = composeReasons(layers, cfg)
	inv.Incomplete = append(inv.Incomplete, movedDatabases(layers)...)
	switch hasOS := slices.ContainsFunc(inv.Packages, gatehouse.Package.OS); {
	case inv.Distro.ID == "" && hasOS:
		inv.Incomplete = append(inv.Incomplete, "the image has packages of an operating system, but no os-release says of which")
	case inv.Distro.ID != "" && !hasOS:
		// Removing the package database is the oldest way to look clean.
		inv.Incomplete = append(inv.Incomplete, fmt.Sprintf("os-release names %.60q, but no package database tells what of it is installed", inv.Distro.ID))
	}
	inv.Complete = len(inv.Incomplete) == 0
	return inv
}

// licensesOf returns the licences of Debian packages as the uppermost layer that
// tells of one has them. Images that leave the documentation out again do not
// change what a package is under.
func licensesOf(layers []gatehouse.LayerInventory) map[string][]string {
	all := map[string][]string{}
	for _, l := range layers {
		maps.Copy(all, l.Licenses)
	}
	return all
}

// siblingLicenses gives Debian packages whose documentation is a link to that of
// another package the licences of that one: it is of the same source (Debian
// Policy, 12.3), whose copyright file is about all of it.
func siblingLicenses(packages []gatehouse.Package) {
	type source struct{ name, version string }
	known := map[source][]string{}
	for _, p := range packages {
		if s := (source{p.SourceName(), p.SourceVer()}); p.Type == "deb" && len(p.Licenses) > len(known[s]) {
			known[s] = p.Licenses
		}
	}
	for i, p := range packages {
		if p.Type == "deb" && len(p.Licenses) == 0 {
			packages[i].Licenses = known[source{p.SourceName(), p.SourceVer()}]
		}
	}
}

// composeReasons tells what the layers and the configuration lack.
func composeReasons(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig) (indexer string, reasons []string) {
	const layerReasonsMax = 200
	indexer = Analysis{}.Version()
	for i, l := range layers {
		if i == 0 {
			indexer = l.Indexer
		} else if l.Indexer != indexer {
			reasons = append(reasons, fmt.Sprintf("layer %d was indexed by another version than layer 0", i))
		}
		if !l.Complete && len(l.Incomplete) == 0 {
			reasons = append(reasons, fmt.Sprintf("layer %d is only partly indexed", i))
		}
		for _, r := range l.Incomplete {
			if len(reasons) < layerReasonsMax {
				reasons = append(reasons, fmt.Sprintf("layer %d: %s", i, r))
			}
		}
	}
	if err := CheckDiffIDs(layers, cfg); err != nil {
		reasons = append(reasons, err.Error())
	}
	return indexer, reasons
}

// CheckDiffIDs compares the diffIDs that the configuration declares with those
// computed from the layers. Errors: CodeInvalid; the image is then invalid and
// no runtime would start it. A layer without a computed diffID (its stream did
// not come to its end) differs. A directory that was indexed by [Rootfs],
// alone and without a configuration, has nothing to compare.
func CheckDiffIDs(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig) error {
	declared := cfg.RootFS.DiffIDs
	if isDirectory(layers, cfg) {
		return nil
	}
	if len(declared) != len(layers) {
		return gatehouse.Errorf(gatehouse.CodeInvalid,
			"the configuration declares %d diffIDs, but the image has %d layers", len(declared), len(layers))
	}
	for i, l := range layers {
		if l.DiffID == "" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "layer %d: its diffID could not be computed", i)
		}
		if l.DiffID != declared[i] {
			return gatehouse.Errorf(gatehouse.CodeInvalid,
				"layer %d: the declared diffID differs from the computed one, %s", i, l.DiffID)
		}
	}
	return nil
}

// isDirectory reports whether layers is what [Rootfs] made.
func isDirectory(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig) bool {
	return len(cfg.RootFS.DiffIDs) == 0 && len(layers) == 1 && layers[0].DiffID == ""
}

// origins remembers, per path and package of OS databases, in which of the
// layers that have the path it is listed.
type origins struct {
	layers []gatehouse.LayerInventory
	// databases maps a path to the layers that have a set there, ascending.
	databases map[string][]database
}

type database struct {
	layer    int
	packages map[packageKey]bool
}

type packageKey struct{ kind, name, version, arch string }

func keyOf(p gatehouse.Package) packageKey { return packageKey{p.Type, p.Name, p.Version, p.Arch} }

func originsOf(layers []gatehouse.LayerInventory) origins {
	o := origins{layers: layers, databases: map[string][]database{}}
	for i, l := range layers {
		for _, set := range l.Sets {
			if len(set.Packages) == 0 || !set.Packages[0].OS() {
				continue
			}
			d := database{layer: i, packages: make(map[packageKey]bool, len(set.Packages))}
			for _, p := range set.Packages {
				d.packages[keyOf(p)] = true
			}
			o.databases[set.Path] = append(o.databases[set.Path], d)
		}
	}
	return o
}

// of goes down from layer as long as the next lower database at path lists p.
func (o origins) of(layer int, path string, p gatehouse.Package) gatehouse.Digest {
	origin, key := layer, keyOf(p)
	for _, d := range slices.Backward(o.databases[path]) {
		if d.layer > layer {
			continue
		}
		if !d.packages[key] {
			break
		}
		origin = d.layer
	}
	return o.layers[origin].DiffID
}

// visibleDistro chooses by os-release(5): /etc before /usr/lib, and the files
// of times before os-release only where there is none.
func visibleDistro(sets []gatehouse.PackageSet) gatehouse.Distro {
	best, rank := gatehouse.Distro{}, len(distroPaths)
	for _, s := range sets {
		if r := distroRank(s.Path); r < rank && s.Distro.ID != "" {
			best, rank = *s.Distro, r
		}
	}
	return best
}

// contentSetsMax bounds the repositories of one image; real ones name less than
// a dozen.
const contentSetsMax = 200

// visibleContentSets joins what the lists that show say. Only Red Hat's images
// have any: elsewhere the same files mean nothing.
func visibleContentSets(d gatehouse.Distro, sets []gatehouse.PackageSet) []string {
	if d.ID != "rhel" {
		return nil
	}
	var all []string
	for _, s := range sets {
		all = append(all, s.Distro.ContentSets...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), contentSetsMax)]
}

// sortPackages sorts by Path, Type, Name, Version and drops repetitions: rows
// that are equal, and OS packages that a second database lists again.
func sortPackages(packages []gatehouse.Package) []gatehouse.Package {
	slices.SortStableFunc(packages, comparePackages)
	packages = slices.CompactFunc(packages, samePackage)
	seen := map[packageKey]bool{}
	return slices.DeleteFunc(packages, func(p gatehouse.Package) bool {
		if !p.OS() {
			return false
		}
		again := seen[keyOf(p)]
		seen[keyOf(p)] = true
		return again
	})
}

func comparePackages(a, b gatehouse.Package) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Source, b.Source),
		cmp.Compare(a.SourceVersion, b.SourceVersion), cmp.Compare(a.Modularity, b.Modularity),
		cmp.Compare(a.Vendor, b.Vendor), slices.Compare(a.Licenses, b.Licenses))
}

func samePackage(a, b gatehouse.Package) bool { return comparePackages(a, b) == 0 }
