package report

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

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

// replacement stands where something does not print.
const replacement = "\uFFFD"

// ciCommands defuses what Azure Pipelines and GitHub Actions obey wherever it
// stands in a log.
var ciCommands = strings.NewReplacer("##vso[", replacement+"#vso[", "##[", replacement+"#[")

// Printable replaces what a terminal, or the log of a CI system, would obey
// instead of show: names and titles come from images and feeds that nobody has
// vetted. The result is one line.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	if strings.Contains(s, "##") {
		s = ciCommands.Replace(s)
	}
	// GitHub Actions takes a line for a command that begins so.
	if text := strings.TrimLeft(s, " "); strings.HasPrefix(text, "::") {
		s = s[:len(s)-len(text)] + replacement + text[1:]
	}
	return s
}

// PrintableLines is [Printable] for a text whose lines stay.
func PrintableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = Printable(l)
	}
	return strings.Join(lines, "\n")
}

// line makes one printable line of a text that may have several.
func line(s string) string { return Printable(strings.Join(strings.Fields(s), " ")) }

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
