package opinion

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Match is one vulnerability that one of two scanners found, or both.
type Match struct {
	ID      string `json:"id"`
	Package string `json:"package"`
	Version string `json:"version"`
	// Ours and Theirs are the severities; empty where it was not found.
	Ours   string `json:"ours,omitempty"`
	Theirs string `json:"theirs,omitempty"`
	// Suppressed: we found it, and it does not count here.
	Suppressed bool `json:"suppressed,omitempty"`
}

// Comparison says how two lists of one image differ.
type Comparison struct {
	Both       []Match `json:"both"`
	OnlyOurs   []Match `json:"onlyOurs"`
	OnlyTheirs []Match `json:"onlyTheirs"`
}

// Compare puts what we found beside what another scanner found. Two findings are
// the same flaw if they share an id or alias and speak of one package, which
// scanners call by its own name or by that of its source. Kinds other than
// vulnerabilities are left out: nobody else is asked about them.
func Compare(ours []gatehouse.Finding, theirs []Finding) Comparison {
	out := Comparison{Both: []Match{}, OnlyOurs: []Match{}, OnlyTheirs: []Match{}}
	named := map[string][]int{} // ours, by id and package
	for i, f := range ours {
		if f.Kind != gatehouse.KindVulnerability && f.Kind != "" {
			continue
		}
		for _, id := range append([]string{f.ID}, f.Aliases...) {
			for _, name := range packageNames(f.Package) {
				k := key(id, name)
				if list := named[k]; len(list) == 0 || list[len(list)-1] != i {
					named[k] = append(list, i)
				}
			}
		}
	}
	met := map[int]*Finding{}
	seen := map[string]bool{} // keys whose findings are all met: lists may be long
	for i, f := range theirs {
		hit := false
		for _, id := range append([]string{f.ID}, f.Aliases...) {
			for _, name := range []string{f.Package, f.Source} {
				k := key(id, name)
				list := named[k]
				hit = hit || len(list) > 0
				if seen[k] {
					continue
				}
				seen[k] = true
				for _, n := range list {
					if met[n] == nil {
						met[n] = &theirs[i]
					}
				}
			}
		}
		if !hit {
			out.OnlyTheirs = append(out.OnlyTheirs, Match{ID: f.ID, Package: f.Package, Version: f.Version, Theirs: f.Severity.String()})
		}
	}
	for i, f := range ours {
		if f.Kind != gatehouse.KindVulnerability && f.Kind != "" {
			continue
		}
		m := Match{ID: f.ID, Package: f.Package.Name, Version: f.Package.Version, Ours: f.Severity.String(), Suppressed: f.Suppressed != nil}
		if their := met[i]; their != nil {
			m.Theirs = their.Severity.String()
			out.Both = append(out.Both, m)
		} else {
			out.OnlyOurs = append(out.OnlyOurs, m)
		}
	}
	return out
}

// packageNames are those that other scanners may give to a package of ours: of
// Maven also the artifact without its group.
func packageNames(p gatehouse.Package) []string {
	out := []string{p.Name}
	if source := p.SourceName(); source != p.Name {
		out = append(out, source)
	}
	if _, artifact, ok := strings.Cut(p.Name, ":"); ok && p.Type == "maven" {
		out = append(out, artifact)
	}
	return out
}

func key(id, name string) string { return strings.ToUpper(id) + "\x00" + strings.ToLower(name) }
