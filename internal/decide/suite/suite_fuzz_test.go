package suite_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/decide/suite"
)

// FuzzSuite: whatever stands in the files, its suites are found and run without a panic.
func FuzzSuite(f *testing.F) {
	good := files(nil)
	f.Add(good["a/suite.yaml"].Data, good["template.yaml"].Data, good["a/constraint.yaml"].Data, good["a/object.yaml"].Data)
	f.Add([]byte("kind: Suite\napiVersion: test.gatekeeper.sh/v1alpha1\ntests: [{name: t, template: ../../x, constraint: ., cases: [{object: suite.yaml, inventory: [suite.yaml]}]}]\n"), []byte("{}"), []byte("---\n---\n"), []byte("[]"))
	f.Fuzz(func(t *testing.T, s, template, constraint, object []byte) {
		fsys := fstest.MapFS{"a/suite.yaml": {Data: s}, "template.yaml": {Data: template}, "a/constraint.yaml": {Data: constraint}, "a/object.yaml": {Data: object}}
		found, err := suite.Find(fsys, ".")
		if err != nil {
			return
		}
		for _, one := range found {
			suite.Run(t.Context(), fsys, one, time.Unix(1, 0))
		}
	})
}
