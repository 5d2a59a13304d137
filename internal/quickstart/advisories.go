package quickstart

import (
	"encoding/json"
	"maps"
	"slices"
)

// fact is one true statement about a published vulnerability. These few are
// written down here so that the story needs no network; they are no advisory
// database, and the story says so on the screen.
type fact struct {
	id, ecosystem, name, fixed string
	vector                     string // CVSS v3.1, as the National Vulnerability Database rates it
	published                  string
	title                      string
}

var known = []fact{
	{"CVE-2022-37434", "Alpine:v3.16", "zlib", "1.2.12-r2", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "2022-08-05T00:00:00Z",
		"heap-based buffer over-read or overflow in inflate through a large gzip header extra field"},
	{"CVE-2019-10744", "npm", "lodash", "4.17.12", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H", "2019-07-26T00:00:00Z",
		"prototype pollution through defaultsDeep"},
	{"CVE-2021-23337", "npm", "lodash", "4.17.21", "CVSS:3.1/AV:N/AC:L/PR:H/UI:N/S:U/C:H/I:H/A:H", "2021-02-15T00:00:00Z",
		"command injection through template"},
}

// wednesday is the advisory that comes out after the image has been admitted.
var wednesday = fact{"CVE-2021-44906", "npm", "minimist", "1.2.6", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "2022-03-17T00:00:00Z",
	"prototype pollution through setKey"}

// osv writes facts as a JSON array of OSV records (OSV schema 1.7).
func osv(facts ...fact) ([]byte, error) {
	type object = map[string]any
	var records []object
	for _, f := range facts {
		kind := "ECOSYSTEM"
		if f.ecosystem == "npm" {
			kind = "SEMVER"
		}
		records = append(records, object{
			"schema_version": "1.7.0", "id": f.id, "published": f.published, "modified": f.published, "summary": f.title,
			"severity": []object{{"type": "CVSS_V3", "score": f.vector}},
			"affected": []object{{
				"package": object{"ecosystem": f.ecosystem, "name": f.name},
				"ranges":  []object{{"type": kind, "events": []object{{"introduced": "0"}, {"fixed": f.fixed}}}},
			}},
		})
	}
	return json.Marshal(records)
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
