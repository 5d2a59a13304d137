package config

// Nearest returns the candidate with the smallest edit distance to s.
func Nearest(s string, candidates []string) string {
	const longest = 64 // of a key that is worth comparing
	if len(s) > longest {
		s = s[:longest]
	}
	best, bestAt := "", int(^uint(0)>>1)
	for _, c := range candidates {
		if d := distance(s, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// Similar is [Nearest] where s looks like a mistyped candidate, else empty: no
// more than a third of it differs.
func Similar(s string, candidates []string) string {
	near := Nearest(s, candidates)
	if near == "" || distance(s, near) > len(s)/3 {
		return ""
	}
	return near
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
