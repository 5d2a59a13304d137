package index

import (
	"archive/tar"
	"fmt"
	"hash/maphash"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Some layers mean one thing in the image specification and another to a runtime,
// or lead a package manager to a database where the walk does not look. No builder
// makes such; whoever does can show one image to a scanner and run another. They
// are told, and in doubt nothing is hidden because of them.

// overlayAttributes are extended attributes that overlayfs obeys: a directory may
// show what lies under another name (redirect), a file may have the content of
// another (metacopy). Runtimes set what the archive names.
var overlayAttributes = []string{"SCHILY.xattr.trusted.overlay.", "SCHILY.xattr.user.overlay."}

// strange looks at an entry that is not a regular file's content.
func (w *walker) strange(h *tar.Header, name string) {
	for key := range h.PAXRecords {
		for _, prefix := range overlayAttributes {
			if strings.HasPrefix(key, prefix) {
				w.found.once("overlay", "%s: extended attribute %s changes what overlayfs shows", quote(name), quote(strings.TrimPrefix(key, "SCHILY.xattr.")))
			}
		}
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		w.symlink(name, h.Linkname)
	case tar.TypeLink:
		if slices.ContainsFunc(databases, func(db string) bool { return strings.HasPrefix(db, name+"/") }) {
			w.found.incomplete("%s: hard link in place of a directory that leads to a package database", quote(name))
		}
	}
}

// databases are where package managers of operating systems keep what is
// installed: files and, with a slash at the end, directories.
var databases = []string{
	"var/lib/dpkg/status", "var/lib/dpkg/status.d/", "var/lib/dpkg/updates/",
	"lib/apk/db/installed", "usr/lib/apk/db/installed",
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
	"usr/share/rpm/Packages", "usr/share/rpm/Packages.db", "usr/share/rpm/rpmdb.sqlite",
	"var/lib/rpmmanifest/container-manifest-2",
}

// symlink remembers where a package manager that goes through the link would find
// its database, unless it is a place that is known as well: lib leads to usr/lib,
// var/lib/rpm to usr/lib/sysimage/rpm.
func (w *walker) symlink(name, target string) {
	if !strings.HasPrefix(target, "/") {
		target = path.Join("/", path.Dir(name), target)
	}
	target, err := cleanPath(path.Clean(target), w.limits)
	if err != nil {
		return // no system follows it
	}
	if path.Base(name) == nodeModules && !strings.Contains("/"+target+"/", "/"+nodeModules+"/") {
		// Packages are known by the name of the folder that they lie in.
		w.found.once(nodeModules, "%s: symbolic link to %s, where no packages are looked for", quote(name), quote(target))
	}
	var places []string
	for _, db := range databases {
		rest, below := strings.CutPrefix(strings.TrimSuffix(db, "/")+"/", name+"/")
		if !below {
			continue
		}
		place := path.Join(target, rest)
		if strings.HasSuffix(db, "/") {
			place += "/"
		}
		if !slices.Contains(databases, place) && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	delete(w.found.links, name)
	if len(places) > 0 && w.found.room(strings.Join(places, "")) {
		w.found.links[name] = places
	}
}

const nodeModules = "node_modules"

// linksInto keeps the links that are what stands at their path in the end.
func (c *collector) linksInto(inv *gatehouse.LayerInventory) {
	for name, places := range c.links {
		if _, ok := c.replaced[name]; ok {
			if inv.Links == nil {
				inv.Links = map[string][]string{}
			}
			inv.Links[name] = places
		}
	}
}

// movedDatabases tells of package databases that are found through symbolic links
// only, at a place that no extractor knows: where a layer has something at the
// place, or another link on the way there, which is not followed further.
func movedDatabases(layers []gatehouse.LayerInventory) (reasons []string) {
	from := map[string]string{} // place → link
	over := cover{at: map[string]bool{}, below: map[string]bool{}}
	for _, l := range slices.Backward(layers) {
		for name, places := range l.Links {
			if over.hides(name) {
				continue
			}
			for _, place := range places {
				from[place] = name
			}
		}
		over.add(l)
	}
	if len(from) == 0 {
		return nil
	}
	found := map[string]bool{} // links
	for _, l := range layers {
		for place, link := range from {
			for dir := range parents(strings.TrimSuffix(place, "/") + "/x") { // and the place itself
				if _, again := slices.BinarySearch(l.Replaced, dir); again && dir != link {
					found[link] = true
				}
			}
		}
		eachPath(l.Paths, func(name []byte, dir bool) {
			if link, ok := from[string(name)]; ok && !dir {
				found[link] = true
			} else if i := slices.Index(name, '/'); i > 0 && !dir {
				if link, ok := from[path.Dir(string(name))+"/"]; ok {
					found[link] = true
				}
			}
		})
	}
	for _, link := range slices.Sorted(maps.Keys(found)) {
		reasons = append(reasons, fmt.Sprintf("%s is a symbolic link that leads package managers to a database which is not looked at", quote(link)))
	}
	return reasons
}

// remember notes the directories above a set or an opaque directory, whose names
// nothing else may take.
func (c *collector) remember(name string) {
	for dir := range parents(name) {
		h := maphash.String(c.seed, dir)
		if c.above[h] {
			return // and so are those above it
		}
		if !c.room("") {
			return
		}
		c.above[h] = true
	}
}

// checkKinds tells of directories that a layer also deletes, or has as something
// else. By the specification a whiteout of dir hides what lower layers have in it,
// whatever else stands in the layer. Runtimes put a device node there, which an
// entry of the directory replaces: then all of it shows again. In the same way an
// opaque directory and the files in it are gone when something else has had the
// directory's name for a while.
func (c *collector) checkKinds(paths []byte) {
	if len(c.whiteouts) == 0 && len(c.changed) == 0 {
		return
	}
	again := map[string]bool{}
	eachPath(paths, func(name []byte, dir bool) {
		if dir && (c.whiteouts[string(name)] || c.changed[string(name)]) {
			again[string(name)] = true
		}
	})
	for _, name := range slices.Sorted(maps.Keys(again)) {
		what := "has it as something else as well"
		if c.whiteouts[name] {
			delete(c.whiteouts, name)
			what = "also deletes it"
		}
		c.incomplete("%s: the layer makes this directory and %s, after which runtimes show what lower layers have in it", quote(name), what)
	}
}
