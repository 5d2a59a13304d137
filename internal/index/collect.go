package index

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gatehouse-dev/gatehouse"
)

// collector keeps what a walk has found, within the limits of the layer.
// Within one layer the last entry of a path wins.
type collector struct {
	limits Limits
	seq    int // grows with each change, to tell which came later
	sets   map[string]located
	// replaced maps a path to the last time something stood there that is
	// neither a directory nor a set.
	replaced  map[string]int
	whiteouts map[string]bool
	opaques   map[string]bool
	// nothing holds hashes of the paths whose content was looked at and held
	// no packages, so that hard links to them are known. A hash collides once
	// in 2^64 with a secret seed.
	nothing map[uint64]bool
	seed    maphash.Seed
	noted   noted
	owners  *owners
	// licenses of Debian packages, by name.
	licenses map[string][]string
	// links are symbolic links to package databases elsewhere; above holds hashes
	// of the directories above sets and opaque directories, changed those of them
	// that became something else. See strange.go.
	links   map[string][]string
	above   map[uint64]bool
	changed map[string]bool

	pathBytes    int64
	packages     int             // kept now
	packageBytes int64           // kept so far
	full         map[string]bool // bounds that were told already
	reasons      []string
	untold       int
}

type located struct {
	seq int
	set gatehouse.PackageSet
}

func newCollector(limits Limits) *collector {
	seed := maphash.MakeSeed()
	return &collector{
		limits: limits, seed: seed, owners: newOwners(seed),
		sets: map[string]located{}, replaced: map[string]int{}, whiteouts: map[string]bool{},
		licenses: map[string][]string{}, opaques: map[string]bool{}, nothing: map[uint64]bool{}, full: map[string]bool{},
		links: map[string][]string{}, above: map[uint64]bool{}, changed: map[string]bool{},
	}
}

// room counts the memory of a path that is to be remembered, and tells once
// when there is no room for it.
func (c *collector) room(name string) bool {
	const overhead = 64 // bytes of the map that holds it
	c.pathBytes += int64(len(name)) + overhead
	if c.pathBytes <= c.limits.PathBytesMax {
		return true
	}
	c.once("paths", "the layer changes more paths than %d bytes of memory hold", c.limits.PathBytesMax)
	return false
}

// license records what a Debian package is under. Beyond the bounds nothing is
// recorded: such packages have no licence that is known.
func (c *collector) license(pkg string, licenses []string) {
	if len(c.licenses) >= c.limits.SetPackagesMax || len(pkg) > fieldMax {
		return
	}
	p := gatehouse.Package{Type: "deb", Name: pkg, Licenses: licenses}
	if boundPackage(&p) && c.room(p.Name+strings.Join(p.Licenses, "")) {
		c.licenses[p.Name] = p.Licenses
	}
}

// put records the set of a file.
func (c *collector) put(name string, set gatehouse.PackageSet) {
	c.drop(name)
	if len(c.sets) >= c.limits.SetsMax {
		c.once("sets", "the layer has more than %d files with packages", c.limits.SetsMax)
		return
	}
	if !c.room(name) {
		return
	}
	set.Path = name
	set.Packages = c.bound(name, set.Packages)
	c.seq++
	c.sets[name] = located{c.seq, set}
	c.remember(name)
}

// bound keeps the packages within the limits of a set and of the layer, and
// their fields short and printable.
func (c *collector) bound(name string, packages []gatehouse.Package) []gatehouse.Package {
	if most := c.limits.SetPackagesMax; len(packages) > most {
		c.incomplete("%s: %d packages, of which %d were kept", quote(name), len(packages), most)
		packages = packages[:most]
	}
	if left := c.limits.PackagesMax - c.packages; len(packages) > left {
		c.once("packages", "the layer has more than %d packages", c.limits.PackagesMax)
		packages = packages[:max(left, 0)]
	}
	kept := make([]gatehouse.Package, 0, len(packages)) // never null in JSON
	for _, p := range packages {
		if !boundPackage(&p) {
			c.incomplete("%s: a package has a name or version that is empty or longer than %d bytes", quote(name), fieldMax)
			continue
		}
		if c.packageBytes += packageBytes(p); c.packageBytes > c.limits.PackageBytesMax {
			c.once("package bytes", "the layer's packages have more than %d bytes of text", c.limits.PackageBytesMax)
			break
		}
		p.Path, p.Layer = "", ""
		kept = append(kept, p)
	}
	slices.SortFunc(kept, comparePackages)
	kept = slices.CompactFunc(kept, samePackage)
	c.packages += len(kept)
	return kept
}

func packageBytes(p gatehouse.Package) int64 {
	n := len(p.Type) + len(p.Name) + len(p.Version) + len(p.Source) + len(p.SourceVersion) + len(p.Arch) + len(p.Modularity) + len(p.Vendor)
	for _, l := range p.Licenses {
		n += len(l)
	}
	return int64(n)
}

// boundPackage makes the strings of p valid UTF-8 of their own memory, and
// reports whether it is fit to be kept.
func boundPackage(p *gatehouse.Package) bool {
	p.Vendor = p.Vendor[:min(len(p.Vendor), fieldMax)]
	for _, s := range []*string{&p.Type, &p.Name, &p.Version, &p.Source, &p.SourceVersion, &p.Arch, &p.Modularity, &p.Vendor} {
		if len(*s) > fieldMax {
			return false
		}
		*s = strings.Clone(strings.ToValidUTF8(*s, "\uFFFD"))
	}
	licenses := make([]string, 0, len(p.Licenses))
	for _, l := range p.Licenses {
		if l != "" && len(l) <= fieldMax && len(licenses) < licensesMax {
			licenses = append(licenses, strings.Clone(strings.ToValidUTF8(l, "\uFFFD")))
		}
	}
	p.Licenses = nil
	if len(licenses) > 0 {
		p.Licenses = licenses
	}
	return p.Type != "" && p.Name != ""
}

// drop forgets the set of a path that something else has taken.
func (c *collector) drop(name string) {
	if old, ok := c.sets[name]; ok {
		c.packages -= len(old.set.Packages)
		delete(c.sets, name)
	}
	if len(c.replaced) > 0 {
		delete(c.replaced, name)
	}
	if len(c.nothing) > 0 {
		delete(c.nothing, maphash.String(c.seed, name))
	}
}

// replace records that name is something without packages that hides what
// lower layers hold there and below.
func (c *collector) replace(name string) {
	c.drop(name)
	c.replaceAt(name)
}

func (c *collector) replaceAt(name string) {
	if name != "" && c.room(name) {
		c.seq++
		c.replaced[name] = c.seq
	}
}

// looked records that the content of name was looked at and holds nothing.
func (c *collector) looked(name string) {
	c.drop(name)
	if c.room("") {
		c.nothing[maphash.String(c.seed, name)] = true
	}
}

// notMine is looked for a file that is to hide what lower layers hold there.
func (c *collector) notMine(name string) {
	c.looked(name)
	c.replaceAt(name)
}

// link gives name the set of target. It reports false when target's content
// was not read, or was read as something else than name asks for.
func (c *collector) link(name, target, extractor string) bool {
	if old, ok := c.sets[target]; ok && old.set.Extractor == extractor {
		c.put(name, old.set)
		return true
	}
	if c.nothing[maphash.String(c.seed, target)] {
		c.notMine(name)
		return true
	}
	return false
}

func (c *collector) whiteout(name string) {
	if c.room(name) {
		c.whiteouts[name] = true
	}
}

func (c *collector) opaque(dir string) {
	if c.room(dir) {
		c.opaques[dir] = true
		c.remember(dir + "/x")
	}
}

// incomplete records a reason, up to a bound.
func (c *collector) incomplete(format string, args ...any) {
	if len(c.reasons) >= reasonsMax {
		c.untold++
		return
	}
	c.reasons = append(c.reasons, cleanText(fmt.Sprintf(format, args...)))
}

// once is incomplete for a bound that would be told for every further entry.
func (c *collector) once(bound, format string, args ...any) {
	if !c.full[bound] {
		c.full[bound] = true
		c.incomplete(format, args...)
	}
}

// inventory returns what was found, everything sorted.
func (c *collector) inventory() gatehouse.LayerInventory {
	paths := c.noted.paths.close()
	c.checkLinks(paths)
	c.checkKinds(paths)
	inv := gatehouse.LayerInventory{
		Sets:       make([]gatehouse.PackageSet, 0, len(c.sets)),
		Whiteouts:  slices.Sorted(maps.Keys(c.whiteouts)),
		Opaques:    slices.Sorted(maps.Keys(c.opaques)),
		Replaced:   slices.Sorted(maps.Keys(c.replaced)),
		Incomplete: slices.Clone(c.reasons),
	}
	for _, name := range slices.Sorted(maps.Keys(c.sets)) {
		if l := c.sets[name]; !c.buried(name, l.seq) {
			if len(l.set.Packages) > 0 && !l.set.Packages[0].OS() {
				l.set.Owner = c.owners.of(name)
			}
			inv.Sets = append(inv.Sets, l.set)
		}
	}
	if c.untold > 0 {
		inv.Incomplete = append(inv.Incomplete, fmt.Sprintf("and %d more reasons", c.untold))
	}
	inv.Complete = len(inv.Incomplete) == 0
	inv.Paths = paths
	c.noted.into(&inv, c)
	c.linksInto(&inv)
	if len(c.licenses) > 0 {
		inv.Licenses = c.licenses
	}
	return inv
}

// buried reports whether a parent of name became a non-directory after name
// was written.
func (c *collector) buried(name string, seq int) bool {
	for dir := range parents(name) {
		if at, ok := c.replaced[dir]; ok && at > seq {
			return true
		}
		if l, ok := c.sets[dir]; ok && l.seq > seq {
			return true
		}
	}
	return false
}

// parents yields the directories above name, nearest first, without the root.
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if !yield(name[:i]) {
				return
			}
		}
	}
}

// quote makes a foreign path printable and short.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

// cleanText makes foreign text one printable line of bounded length.
func cleanText(s string) string {
	if len(s) > reasonLengthMax {
		s = s[:reasonLengthMax] + "…"
	}
	return cleanLine(s)
}

// cleanLine makes foreign text one printable line.
func cleanLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
