package index

import (
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Skip names directories and files that are not looked at. The zero Skip skips
// nothing.
type Skip struct{ dirs, files []pattern }

// pattern is the parts of a path: each is matched by path.Match, "**" is any
// number of parts.
type pattern []string

// NewSkip reads patterns as Trivy's users write them: paths from the root, with
// or without a leading slash, parts with the wildcards of [path.Match], and "**"
// for any number of parts ("**/testdata"). What is skipped still hides what lies
// below it in lower layers. Errors: CodeInvalid, which names the pattern.
func NewSkip(dirs, files []string) (Skip, error) {
	var s Skip
	for _, list := range []struct {
		from []string
		to   *[]pattern
	}{{dirs, &s.dirs}, {files, &s.files}} {
		for _, text := range list.from {
			clean := path.Clean(strings.TrimLeft(text, "/"))
			if _, err := path.Match(clean, ""); err != nil || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
				return Skip{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no pattern of a path below the root", text).
					WithHint("for example usr/share/doc, **/testdata or **/*.md")
			}
			*list.to = append(*list.to, strings.Split(clean, "/"))
		}
	}
	return s, nil
}

// String is empty for the zero Skip.
func (s Skip) String() string {
	var all []string
	for _, p := range s.dirs {
		all = append(all, strings.Join(p, "/")+"/")
	}
	for _, p := range s.files {
		all = append(all, strings.Join(p, "/"))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// dir reports whether name or a directory above it is skipped.
func (s Skip) dir(name string) bool {
	if len(s.dirs) == 0 || name == "" {
		return false
	}
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(s.dirs, func(p pattern) bool { return p.match(parts, true) })
}

// file reports whether the file name is skipped.
func (s Skip) file(name string) bool {
	if len(s.dirs) == 0 && len(s.files) == 0 {
		return false
	}
	if dir := path.Dir(name); dir != "." && s.dir(dir) {
		return true
	}
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(s.files, func(p pattern) bool { return p.match(parts, false) })
}

// match reports whether p matches all of parts or, with above, their beginning.
// It takes len(p) × len(parts) steps, whatever stands in p.
func (p pattern) match(parts []string, above bool) bool {
	at := make([]bool, len(p)+1) // at[j]: the first j parts of p match what was read
	at[0] = true
	for j := 0; j < len(p) && p[j] == "**"; j++ {
		at[j+1] = true
	}
	for _, part := range parts {
		next := make([]bool, len(p)+1)
		for j, want := range p {
			if at[j] && want == "**" {
				next[j] = true
			} else if ok, _ := path.Match(want, part); at[j] && ok {
				next[j+1] = true
			}
			if next[j] && want == "**" {
				next[j+1] = true
			}
		}
		at = next
		if above && at[len(p)] {
			return true
		}
	}
	return at[len(p)]
}
