package load_test

import (
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/decide/suite"
)

// TestGatekeeperDocs loads the policies of docs/gatekeeper.md and runs its suite.
func TestGatekeeperDocs(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/gatekeeper.md")
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	var files []load.File
	for _, m := range example.FindAllSubmatch(doc, -1) {
		name := string(m[1])
		fsys[name] = &fstest.MapFile{Data: m[2]}
		if name != "suite.yaml" && name != "pod.yaml" {
			files = append(files, load.File{Path: name, Data: m[2]})
		}
	}
	set, problems := load.Load(files, gatehouse.Deny)
	if len(files) != 3 || !set.Complete || len(problems) > 0 || len(set.Policies) != 1 {
		t.Errorf("%d examples, %d policies, complete=%v: %v", len(files), len(set.Policies), set.Complete, problems)
	}
	suites, err := suite.Find(fsys, "suite.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range suite.Run(t.Context(), fsys, suites[0], time.Now()) {
		if r.Err != nil {
			t.Errorf("%s/%s: %v", r.Test, r.Case, r.Err)
		}
	}
}
