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

// line makes one printable line of a text that may have several.
func line(s string) string { return Printable(strings.Join(strings.Fields(s), " ")) }

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
