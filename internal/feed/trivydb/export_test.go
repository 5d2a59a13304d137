package trivydb

import "github.com/gatehouse-dev/gatehouse"

// AffectedVersions turns an advisory's three lists of constraints into ranges.
func AffectedVersions(vulnerable, patched, unaffected []string) ([]gatehouse.Range, []string, error) {
	return affectedVersions(vulnerable, patched, unaffected)
}
