package osv

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// affected normalises one entry; a result without a name is to be dropped.
func (f *affected) affected(r *record) (gatehouse.Affected, error) {
	if f.Package == nil {
		return gatehouse.Affected{}, nil // git commits only
	}
	space, name := f.Package.Ecosystem, f.Package.Name
	if space == "" || name == "" {
		return gatehouse.Affected{}, gatehouse.Errorf(gatehouse.CodeInvalid, "package needs both ecosystem and name")
	}
	for what, s := range map[string]string{"package.ecosystem": space, "package.name": name} {
		if err := field.Check(what, s, field.NameMax); err != nil {
			return gatehouse.Affected{}, err
		}
	}
	out := gatehouse.Affected{
		Space: space, Name: gatehouse.NormalName(space, name),
		Versions: f.Versions, Informational: word(f.Database.Informational),
	}
	for i := range f.Ranges {
		one, err := f.Ranges[i].events()
		if err != nil {
			return gatehouse.Affected{}, gatehouse.Errorf(gatehouse.CodeInvalid, "ranges[%d]: %w", i, err)
		}
		if len(one.Events) > 0 {
			out.Ranges = append(out.Ranges, one)
		}
	}
	if len(out.Ranges) == 0 && len(out.Versions) == 0 {
		return gatehouse.Affected{}, nil
	}
	if strings.EqualFold(word(f.Specific.Urgency), "end-of-life") {
		out.Status = gatehouse.StatusEndOfLife
	}
	out.Modules = modules(f, r.Summary)
	out.Arches = platforms(f.Specific.Imports)
	out.Severity = max(field.Severity(word(f.Specific.Severity)), field.Severity(word(f.Specific.Urgency)))
	return out, nil
}

// platforms returns what Go's database limits a flaw to: imports is a list of
// packages, each with goos and goarch where only those have it. One package
// without such a limit is on all. "*" stands for any.
func platforms(imports any) []string {
	list, _ := imports.([]any)
	var out []string
	for _, one := range list {
		fields, _ := one.(map[string]any)
		systems, machines := platformWords(fields["goos"]), platformWords(fields["goarch"])
		if len(systems)+len(machines) == 0 {
			return nil
		}
		if len(systems) == 0 {
			systems = []string{"*"}
		}
		if len(machines) == 0 {
			machines = []string{"*"}
		}
		for _, s := range systems {
			for _, m := range machines {
				if p := s + "/" + m; !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
		if len(out) > platformsMax {
			return nil
		}
	}
	return out
}

func platformWords(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, one := range list {
		if s := word(one); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// events checks one range; a git range comes back without events.
func (v *versionRange) events() (gatehouse.Range, error) {
	switch v.Type {
	case "GIT":
		return gatehouse.Range{}, nil
	case "SEMVER", "ECOSYSTEM":
	default:
		return gatehouse.Range{}, gatehouse.Errorf(gatehouse.CodeInvalid, "type %q is none of SEMVER, ECOSYSTEM and GIT", field.Clip(v.Type))
	}
	out := gatehouse.Range{Type: v.Type, Events: make([]gatehouse.RangeEvent, 0, len(v.Events))}
	introduced := false
	for i, e := range v.Events {
		var one gatehouse.RangeEvent
		set := 0
		for _, f := range []struct {
			from *string
			to   *string
		}{{e.Introduced, &one.Introduced}, {e.Fixed, &one.Fixed}, {e.LastAffected, &one.LastAffected}, {e.Limit, &one.Limit}} {
			if f.from == nil {
				continue
			}
			if *f.from == "" {
				return out, gatehouse.Errorf(gatehouse.CodeInvalid, "events[%d] names an empty version", i)
			}
			if err := field.Check("version", *f.from, field.NameMax); err != nil {
				return out, err
			}
			*f.to = *f.from
			set++
		}
		if set != 1 {
			return out, gatehouse.Errorf(gatehouse.CodeInvalid, "events[%d] needs exactly one of introduced, fixed, last_affected and limit, it has %d", i, set)
		}
		introduced = introduced || one.Introduced != ""
		out.Events = append(out.Events, one)
	}
	if !introduced {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "no event says where the flaw was introduced")
	}
	return out, nil
}

var (
	streamPattern = regexp.MustCompile(`[a-zA-Z0-9_.+-]+:[a-zA-Z0-9_.+-]+`)
	rpmmodPattern = regexp.MustCompile(`[?&]rpmmod=([a-zA-Z0-9_.+-]+)(?::|%3A)([a-zA-Z0-9_.+-]+)`)
)

// modules finds the rpm module streams that an entry is about. Red Hat says it
// in the package URL; AlmaLinux and Rocky Linux only in the summary ("Important:
// nodejs:16 security update") of records whose releases are those of modules.
func modules(f *affected, summary string) []string {
	if m := rpmmodPattern.FindStringSubmatch(f.Package.PURL); m != nil {
		return []string{m[1] + ":" + m[2]}
	}
	modular := false
	for _, r := range f.Ranges {
		for _, e := range r.Events {
			modular = modular || e.Fixed != nil && strings.Contains(*e.Fixed, ".module")
		}
	}
	if !modular {
		return nil
	}
	_, title, ok := strings.Cut(summary, ": ")
	if !ok {
		title = summary
	}
	return streamPattern.FindAllString(title, -1)
}

// word returns v where it is a string, else nothing: what is specific to a
// database or ecosystem may have any form.
func word(v any) string {
	s, _ := v.(string)
	if field.Check("", s, field.IDMax) != nil {
		return ""
	}
	return s
}
