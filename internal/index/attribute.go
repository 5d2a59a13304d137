package index

import (
	"cmp"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/misconfig"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

// attribute lays the findings and files of layers over each other. What an
// upper layer deletes or replaces is gone, but for secrets: whoever pulls the
// image has them, and they say so (Location.Deleted).
func attribute(layers []gatehouse.LayerInventory) (findings []gatehouse.Finding, files []gatehouse.FileDigest) {
	writers := writersOf(layers)
	over := cover{at: map[string]bool{}, below: map[string]bool{}}
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		for _, f := range l.Findings {
			if f.Location == nil {
				f.Location = &gatehouse.Location{Origin: "file"}
			}
			if writers.above(i, f.Package.Path) || over.hides(f.Package.Path) {
				if f.Kind != gatehouse.KindSecret {
					continue
				}
				at := *f.Location
				at.Deleted = true
				f.Location = &at
			}
			f.Package.Layer = l.DiffID
			findings = append(findings, f)
		}
		for _, f := range l.Files {
			if !writers.above(i, f.Path) && !over.hides(f.Path) {
				f.Layer = l.DiffID
				files = append(files, f)
			}
		}
		over.add(l)
	}
	slices.SortStableFunc(files, func(a, b gatehouse.FileDigest) int { return cmp.Compare(a.Path, b.Path) })
	return foldFindings(findings), files
}

// foldFindings sorts findings and drops repetitions: the same secret at the same
// place in several layers, of which the one that shows stays.
func foldFindings(findings []gatehouse.Finding) []gatehouse.Finding {
	deleted := func(f gatehouse.Finding) int {
		if f.Location.Deleted {
			return 1
		}
		return 0
	}
	place := func(a, b gatehouse.Finding) int {
		return cmp.Or(cmp.Compare(a.Package.Path, b.Package.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.Location.Origin, b.Location.Origin), cmp.Compare(a.Location.Name, b.Location.Name),
			cmp.Compare(a.Location.StartLine, b.Location.StartLine), cmp.Compare(a.Location.Excerpt, b.Location.Excerpt))
	}
	slices.SortStableFunc(findings, func(a, b gatehouse.Finding) int { return cmp.Or(place(a, b), cmp.Compare(deleted(a), deleted(b))) })
	return slices.CompactFunc(findings, func(a, b gatehouse.Finding) bool { return place(a, b) == 0 })
}

// writers tells which layer is the highest to write a path, for the paths that
// lower layers have findings or files at, and those above them.
type writers struct {
	any  map[string]int // as file or directory
	file map[string]int // as a file, which hides what lies below
}

func writersOf(layers []gatehouse.LayerInventory) writers {
	w := writers{any: map[string]int{}, file: map[string]int{}}
	if len(layers) < 2 {
		return w
	}
	asked := map[string]bool{}
	ask := func(name string) {
		if asked[name] {
			return
		}
		asked[name] = true
		for dir := range parents(name) {
			if asked[dir] {
				return
			}
			asked[dir] = true
		}
	}
	for _, l := range layers[:len(layers)-1] {
		for _, f := range l.Findings {
			ask(f.Package.Path)
		}
		for _, f := range l.Files {
			ask(f.Path)
		}
	}
	if len(asked) == 0 {
		return w
	}
	for i, l := range layers[1:] {
		eachPath(l.Paths, func(name []byte, dir bool) {
			if asked[string(name)] {
				w.any[string(name)] = i + 1
				if !dir {
					w.file[string(name)] = i + 1
				}
			}
		})
	}
	return w
}

// above reports whether a layer above layer writes name, or a file in place of
// a directory above it.
func (w writers) above(layer int, name string) bool {
	if w.any[name] > layer {
		return true
	}
	if len(w.file) > 0 {
		for dir := range parents(name) {
			if w.file[dir] > layer {
				return true
			}
		}
	}
	return false
}

// configFindings looks at the image configuration.
func configFindings(cfg gatehouse.ImageConfig) []gatehouse.Finding {
	secrets := secret.Config(cfg)
	return append(secrets, misconfig.Image(cfg, secrets)...)
}
