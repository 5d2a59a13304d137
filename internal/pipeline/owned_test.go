package pipeline_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

// TestOwnedPackagesCountOnce: a package of a language that came with one of the
// distribution's is reported with that one, whether its advisories are loaded
// before the image is pushed or after; the same file without an owner, and in an
// image whose distribution nobody reports on, is reported by itself.
func TestOwnedPackagesCountOnce(t *testing.T) {
	h := open(t, t.TempDir()).work()
	lodash := file{"usr/lib/node_modules/lodash/package.json", `{"name":"lodash","version":"4.17.20"}`}
	database := func(files string) file {
		return file{"lib/apk/db/installed", "P:nodejs-lodash\nV:4.17.20-r3\nA:noarch\n" + files + "\n"}
	}
	owns := database("F:usr/lib/node_modules/lodash\nR:package.json\n")
	push := func(repo gatehouse.Repo, files ...file) gatehouse.Digest {
		blob, id := layer(t, files...)
		return h.push(repo, [][]byte{blob}, []gatehouse.Digest{id})
	}
	before := push("a/before", osRelease("alpine", "3.20.3"), owns, lodash)
	h.indexed(before)
	h.publish(flaw("CVE-2021-23337", "npm", "lodash", "4.17.21"), flaw("ALPINE-CVE-2021-23337", "Alpine:v3.20", "nodejs-lodash", "4.17.20-r4"))
	own := []string{"CVE-2021-23337 nodejs-lodash 4.17.20-r3"}
	if spaces := h.indexed(before).Spaces; !slices.Equal(spaces, []string{"Alpine:v3.20"}) {
		t.Errorf("spaces %q: npm's advisories are not asked for", spaces)
	}
	for _, test := range []struct {
		name  string
		image gatehouse.Digest
		want  []string
	}{
		{"pushed before the advisories", before, own},
		{"pushed after", push("a/after", osRelease("alpine", "3.20.3"), owns, lodash, noise()), own},
		{"installed by hand", push("a/byhand", osRelease("alpine", "3.20.3"), database(""), lodash), []string{"CVE-2021-23337 lodash 4.17.20", own[0]}},
		{"distribution without advisories", push("a/other", osRelease("unheard", "1"), owns, lodash), []string{"CVE-2021-23337 lodash 4.17.20"}},
	} {
		if d := cmp.Diff(test.want, h.vulns(test.image)); d != "" {
			t.Errorf("%s:\n%s", test.name, d)
		}
	}
}
