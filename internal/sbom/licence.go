package sbom

import (
	_ "embed"
	"strings"
	"sync"
)

// licences.txt holds the ids of the SPDX licence list, as CycloneDX 1.6 knows
// them, one per line; TestLicenceList compares it with the schema.
//
//go:embed licences.txt
var licenceList string

// licenceIDs finds ids by their lower-case form. It is made on first use: most
// runs of the program write no bill.
var licenceIDs = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	for id := range strings.SplitSeq(strings.TrimSpace(licenceList), "\n") {
		if strings.Contains(id, "exception") {
			continue // it stands behind WITH only
		}
		m[strings.ToLower(id)] = id
	}
	return m
})

// licenseID returns the id of the SPDX list that s is, in any case.
func licenseID(s string) (string, bool) {
	id, ok := licenceIDs()[strings.ToLower(s)]
	return id, ok
}

// isExpression reports whether s is more than one id.
func isExpression(s string) bool {
	for word := range strings.FieldsSeq(s) {
		if word == "AND" || word == "OR" || word == "WITH" {
			return true
		}
	}
	return false
}

// knownExpression reports whether s is an expression of the SPDX grammar
// (SPDX 2.3, annex D) over ids of the list.
func knownExpression(s string) bool {
	words := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
	if len(words) == 0 || len(words) > 200 {
		return false
	}
	operand, open := true, 0 // an operand is expected; parentheses that are open
	for i, w := range words {
		switch {
		case w == "(":
			if !operand {
				return false
			}
			open++
		case w == ")":
			if operand || open == 0 {
				return false
			}
			open--
		case w == "AND" || w == "OR" || w == "WITH":
			if operand {
				return false
			}
			operand = true
		case !operand:
			return false
		default:
			// What follows WITH is the id of an exception, which is on another list.
			if _, ok := licenseID(strings.TrimSuffix(w, "+")); !ok && (i == 0 || words[i-1] != "WITH" || !plainID(w)) {
				return false
			}
			operand = false
		}
	}
	return !operand && open == 0
}

// plainID reports whether s has only the characters of an SPDX id.
func plainID(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' {
			return false
		}
	}
	return s != ""
}
