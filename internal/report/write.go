package report

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Options are what some formats say besides the report.
type Options struct {
	Version  string // of the program
	Template string // the text for the format "template", see [LoadTemplate]
	Now      time.Time
	Started  time.Time // when the scan began; zero: not told
	// Getenv tells the CI system's variables to the formats "github" and
	// "cosign-vuln"; nil has none.
	Getenv func(string) string
}

func (o Options) env(name string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(name)
}

// format is one way to write a report.
type format struct {
	name string
	// packages: the format lists all packages, so that the report must have
	// them (see [Report.WithPackages]).
	packages bool
	write    func(io.Writer, Report, Options) error
}

func formats() []format {
	return []format{
		{"table", false, writeTable},
		{"json", false, writeJSON},
		{"sarif", false, writeSARIF},
		{"github", true, writeGitHub},
		{"junit", false, writeJUnit},
		{"template", false, writeTemplate},
		{"cosign-vuln", false, writeCosignVuln},
	}
}

// Formats lists the names that [Write] knows.
func Formats() []string {
	var names []string
	for _, f := range formats() {
		names = append(names, f.name)
	}
	return names
}

// NeedsPackages reports whether a format lists all packages.
func NeedsPackages(name string) bool {
	return slices.ContainsFunc(formats(), func(f format) bool { return f.name == name && f.packages })
}

// Write prints a report in the named format. CodeInvalid: no such format, or a
// template that does not work.
func Write(w io.Writer, name string, r Report, o Options) error {
	for _, f := range formats() {
		if f.name == name {
			return f.write(w, r, o)
		}
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", name).WithHint("use one of: %s", strings.Join(Formats(), ", "))
}

func writeJSON(w io.Writer, r Report, _ Options) error { return encode(w, r) }

// encode writes doc as JSON that a terminal may be shown.
func encode(w io.Writer, doc any) error {
	enc := json.NewEncoder(JSONWriter(w))
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}
