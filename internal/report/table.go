package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	titleWidth = 60 // keeps a row on one line of a wide terminal, in characters
	stepWidth  = 80
	// epssTold is from which probability the table speaks of EPSS.
	epssTold = 0.1
)

// kindWords are the sections of the table, in order.
var kindWords = []struct {
	kind gatehouse.Kind
	name string // heading and name in the sums
}{
	{gatehouse.KindVulnerability, "Vulnerabilities"},
	{gatehouse.KindMalware, "Malware"},
	{gatehouse.KindSecret, "Secrets"},
	{gatehouse.KindMisconfig, "Misconfigurations"},
	{gatehouse.KindLicense, "Licences"},
}

func writeTable(w io.Writer, r Report, _ Options) error {
	t := table{r: r, listed: map[gatehouse.Kind][]Finding{}}
	for _, f := range r.Findings {
		if f.Suppressed != nil {
			t.suppressed = append(t.suppressed, f)
			continue
		}
		kind := cmp.Or(f.Kind, gatehouse.KindVulnerability)
		t.listed[kind] = append(t.listed[kind], f)
	}
	t.head()
	for _, k := range kindWords {
		if list := t.listed[k.kind]; len(list) > 0 {
			t.section(k.kind, k.name, list)
		}
	}
	t.suppressions()
	t.origins()
	t.sums()
	t.notCompared()
	t.incomplete()
	_, err := io.WriteString(w, t.String())
	return err
}

// table is a report on its way to people.
type table struct {
	strings.Builder
	r          Report
	listed     map[gatehouse.Kind][]Finding
	suppressed []Finding
}

func (t *table) head() {
	fmt.Fprintf(t, "%s\n", Printable(targetName(t.r)))
	if t.r.Target.Digest != "" {
		fmt.Fprintf(t, "%s\n", t.r.Target.Digest)
	}
	if others := t.r.Target.Others(); len(others) > 0 {
		fmt.Fprintf(t, "this is the image for %s; the index has others, for %s (--platform)\n",
			Printable(t.r.Target.Platform), Printable(strings.Join(others, ", ")))
	}
	t.WriteString("\n")
	if t.r.OS.EOL != nil && *t.r.OS.EOL {
		since := ""
		if !t.r.OS.EOLDate.IsZero() {
			since = " since " + t.r.OS.EOLDate.Format(time.DateOnly)
		}
		fmt.Fprintf(t, "warning: %s gets no more fixes%s; new flaws in it may never be listed\n\n", Printable(osName(t.r.OS)), since)
	}
}

func osName(o OS) string { return strings.TrimSpace(o.Family + " " + o.Version) }

func targetName(r Report) string {
	if r.OS.Family == "" {
		return r.Target.Reference
	}
	return r.Target.Reference + " (" + osName(r.OS) + ")"
}

func (t *table) section(kind gatehouse.Kind, name string, list []Finding) {
	if len(t.listed) > 1 {
		fmt.Fprintf(t, "%s\n\n", name)
	}
	switch kind {
	case gatehouse.KindVulnerability:
		groups := groupsOf(t.r, list)
		for _, g := range groups {
			if aFile := g.class == "lang-pkgs" && !g.paths; len(groups) > 1 || aFile {
				fmt.Fprintf(t, "%s: %d\n\n", Printable(g.name), len(g.list))
			}
			t.vulnerabilities(g)
		}
	case gatehouse.KindMalware, gatehouse.KindLicense:
		t.named(kind, list)
	default:
		t.places(list)
	}
	t.repairs(list)
}

func (t *table) vulnerabilities(g group) {
	rows := [][]string{{"Library", "Vulnerability", "Severity", "Installed", "Fixed", "Title"}}
	if g.paths {
		rows[0] = append(rows[0], "Where")
	}
	for _, f := range g.list {
		fixed := f.FixedVersion
		if fixed == "" && f.Status != gatehouse.StatusAffected {
			fixed = strings.ReplaceAll(f.Status, "_", " ")
		}
		row := []string{f.Package.Name, f.ID, f.Severity.String(), f.Package.Version, fixed, clip(marks(f)+line(f.Title), titleWidth)}
		if g.paths {
			row = append(row, f.Package.Path)
		}
		rows = append(rows, row)
	}
	Columns(&t.Builder, rows)
	t.WriteString("\n")
}

// marks are what makes a flaw urgent, before its title.
func marks(f Finding) string {
	var m []string
	if f.KEV {
		m = append(m, "exploited")
	}
	if f.EPSS != nil && *f.EPSS >= epssTold {
		m = append(m, fmt.Sprintf("EPSS %.0f%%", *f.EPSS*100))
	}
	if len(m) == 0 {
		return ""
	}
	return "[" + strings.Join(m, ", ") + "] "
}

// named lists what a package or a file is called: licences and malware.
func (t *table) named(kind gatehouse.Kind, list []Finding) {
	what := "Malware"
	if kind == gatehouse.KindLicense {
		what = "Licence"
	}
	rows := [][]string{{"Where", what, "Severity", "Title"}}
	for _, f := range list {
		rows = append(rows, []string{Place(f), f.ID, f.Severity.String(), clip(line(f.Title), titleWidth)})
	}
	Columns(&t.Builder, rows)
	t.WriteString("\n")
}

// places lists secrets and misconfigurations with what stands there.
func (t *table) places(list []Finding) {
	rows := [][]string{{"Where", "Id", "Severity", "Title"}}
	for _, f := range list {
		title := line(f.Title)
		if f.Location != nil && f.Location.Excerpt != "" {
			title += ": " + line(f.Location.Excerpt)
		}
		rows = append(rows, []string{Place(f), f.ID, f.Severity.String(), clip(title, titleWidth+stepWidth/2)})
	}
	Columns(&t.Builder, rows)
	t.WriteString("\n")
}

// Place says in words where a finding is: a package, a line of a file, a
// variable of the configuration.
func Place(f Finding) string {
	if f.Package.Name != "" {
		return strings.TrimSpace(f.Package.Name + " " + f.Package.Version)
	}
	if f.Location == nil {
		return f.Package.Path
	}
	place := f.Package.Path
	switch l := f.Location; {
	case place != "" && l.StartLine > 0:
		place = fmt.Sprintf("%s:%d", place, l.StartLine)
	case place == "" && l.Name != "":
		place = l.Origin + " " + l.Name
	case place == "":
		place = l.Origin
	}
	if f.Location.Deleted {
		place += " (deleted by a later layer)"
	}
	return place
}

// repairs says once per id how to repair it.
func (t *table) repairs(list []Finding) {
	seen := map[string]bool{}
	for _, f := range list {
		if f.Resolution == "" || seen[f.ID] {
			continue
		}
		if len(seen) == 0 {
			t.WriteString("How to fix:\n")
		}
		seen[f.ID] = true
		fmt.Fprintf(t, "  %s: %s\n", Printable(f.ID), line(f.Resolution))
	}
	if len(seen) > 0 {
		t.WriteString("\n")
	}
}

func (t *table) suppressions() {
	switch {
	case len(t.suppressed) > 0:
		t.WriteString("Suppressed\n\n")
		rows := [][]string{{"Where", "Id", "Severity", "By", "Why"}}
		for _, f := range t.suppressed {
			rows = append(rows, []string{Place(f), f.ID, f.Severity.String(), f.Suppressed.By, clip(Cause(*f.Suppressed), stepWidth)})
		}
		Columns(&t.Builder, rows)
		t.WriteString("\n")
	case t.r.Suppressed > 0:
		fmt.Fprintf(t, "%d suppressed; --show-suppressed lists them\n\n", t.r.Suppressed)
	}
}

// Cause says in words why a finding is suppressed.
func Cause(s gatehouse.Suppression) string {
	parts := []string{}
	for _, p := range []string{strings.ReplaceAll(s.Status, "_", " "), strings.ReplaceAll(s.Reason, "_", " ")} {
		if p != "" {
			parts = append(parts, line(p))
		}
	}
	text := strings.Join(parts, ": ")
	var notes []string
	if s.Author != "" {
		notes = append(notes, "by "+line(s.Author))
	}
	if !s.Expires.IsZero() {
		notes = append(notes, "until "+s.Expires.UTC().Format(time.DateOnly))
	}
	if s.Source != "" {
		notes = append(notes, line(s.Source))
	}
	if len(notes) > 0 {
		text = strings.TrimSpace(text + " (" + strings.Join(notes, ", ") + ")")
	}
	return text
}

// origins counts findings by the step that brought them: what the base image
// has, a new base image repairs.
func (t *table) origins() {
	counts, order := map[string]int{}, []string{}
	for _, f := range t.r.Findings {
		if f.Base == nil || f.Suppressed != nil {
			continue
		}
		name := Step(f.Step)
		if *f.Base {
			name = "the base image"
		}
		if name == "" {
			name = "layer " + f.Package.Layer.Short()
		}
		if counts[name]++; counts[name] == 1 {
			order = append(order, name)
		}
	}
	if len(order) == 0 {
		return
	}
	slices.SortStableFunc(order, func(a, b string) int { return counts[b] - counts[a] })
	rows := [][]string{{"Brought by", "Findings"}}
	for _, name := range order {
		rows = append(rows, []string{clip(name, stepWidth), fmt.Sprint(counts[name])})
	}
	Columns(&t.Builder, rows)
	t.WriteString("\n")
}

// Step makes a step of an image's history readable: without the shell that
// runs it and without BuildKit's remark.
func Step(createdBy string) string {
	s := line(createdBy)
	s = strings.TrimSuffix(s, "# buildkit")
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c #(nop) "); ok {
		return strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		return "RUN " + strings.TrimSpace(rest)
	}
	return strings.TrimSpace(strings.Replace(s, "RUN /bin/sh -c ", "RUN ", 1))
}

func (t *table) sums() {
	if len(t.listed) > 1 {
		for _, k := range kindWords {
			if list := t.listed[k.kind]; len(list) > 0 {
				fmt.Fprintf(t, "%s: %s\n", k.name, sum(list))
			}
		}
	}
	fmt.Fprintf(t, "Total: %s\n", t.r.Summary)
}

func sum(list []Finding) Summary {
	var s Summary
	for _, f := range list {
		s.Add(f.Severity)
	}
	return s
}

// String is how sums are told: "2 (CRITICAL: 1, HIGH: 1, …)".
func (s Summary) String() string {
	return fmt.Sprintf("%d (CRITICAL: %d, HIGH: %d, MEDIUM: %d, LOW: %d, NEGLIGIBLE: %d, UNKNOWN: %d)",
		s.Total(), s.Critical, s.High, s.Medium, s.Low, s.Negligible, s.Unknown)
}

// notCompared tells of packages that nothing was compared with; people get the
// first few.
func (t *table) notCompared() {
	const shown = 10
	list := t.r.NotCompared
	if len(list) == 0 {
		return
	}
	t.WriteString("\nnot compared with any advisory:\n")
	for _, what := range list[:min(len(list), shown)] {
		fmt.Fprintf(t, "  - %s\n", Printable(what))
	}
	if more := len(list) - shown; more > 0 {
		fmt.Fprintf(t, "  - and %d more, which --format json lists\n", more)
	}
}

func (t *table) incomplete() {
	if t.r.Complete {
		return
	}
	t.WriteString("\nincomplete: this result proves nothing about what could not be looked at:\n")
	for _, reason := range t.r.IncompleteReasons {
		fmt.Fprintf(t, "  - %s\n", Printable(reason))
	}
}
