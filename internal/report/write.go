package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// Formats lists the names that [Write] knows.
func Formats() []string { return []string{"table", "json"} }

// Write prints a report in the named format. CodeInvalid: no such format.
func Write(w io.Writer, format string, r Report) error {
	switch format {
	case "table":
		return writeTable(w, r)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", format).WithHint("use one of: %s", strings.Join(Formats(), ", "))
}

// titleWidth keeps a row on one line of a wide terminal, in characters.
const titleWidth = 60

func writeTable(w io.Writer, r Report) error {
	var b strings.Builder
	name := r.Target.Reference
	if r.OS.Family != "" {
		name += " (" + strings.TrimSpace(r.OS.Family+" "+r.OS.Version) + ")"
	}
	fmt.Fprintf(&b, "%s\n", Printable(name))
	if r.Target.Digest != "" {
		fmt.Fprintf(&b, "%s\n", r.Target.Digest)
	}
	b.WriteString("\n")
	if len(r.Findings) > 0 {
		rows := [][]string{{"Library", "Vulnerability", "Severity", "Installed", "Fixed", "Title"}}
		for _, f := range r.Findings {
			fixed := f.FixedVersion
			if fixed == "" && f.Status != gatehouse.StatusAffected {
				fixed = strings.ReplaceAll(f.Status, "_", " ")
			}
			rows = append(rows, []string{f.Package.Name, f.ID, f.Severity.String(), f.Package.Version, fixed, clip(f.Title, titleWidth)})
		}
		Columns(&b, rows)
		b.WriteString("\n")
	}
	s := r.Summary
	fmt.Fprintf(&b, "Total: %d (CRITICAL: %d, HIGH: %d, MEDIUM: %d, LOW: %d, NEGLIGIBLE: %d, UNKNOWN: %d)\n",
		s.Total(), s.Critical, s.High, s.Medium, s.Low, s.Negligible, s.Unknown)
	if !r.Complete {
		b.WriteString("\nincomplete: this result proves nothing about what could not be looked at:\n")
		for _, reason := range r.IncompleteReasons {
			fmt.Fprintf(&b, "  - %s\n", Printable(reason))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Columns writes rows as left-aligned columns under a ruled first row.
func Columns(b *strings.Builder, rows [][]string) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = Printable(cell)
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for n, row := range rows {
		writeRow(b, row, width, " ")
		if n == 0 {
			rule := make([]string, len(width))
			for i := range rule {
				rule[i] = strings.Repeat("─", width[i])
			}
			writeRow(b, rule, width, " ")
		}
	}
}

func writeRow(b *strings.Builder, row []string, width []int, pad string) {
	var line strings.Builder
	for i, cell := range row {
		line.WriteString(cell)
		if i < len(row)-1 {
			line.WriteString(strings.Repeat(pad, width[i]-utf8.RuneCountInString(cell)+2))
		}
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// Printable replaces what a terminal would obey instead of show: names and
// titles come from images and feeds that nobody has vetted.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
