package tool

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need returns the path of a program that a test runs, or skips the test with
// a reason that names it. GATEHOUSE_<NAME> is asked first, then PATH; `make
// test` and `make e2e` set both. Debian's PostgreSQL is in neither, but in a
// folder of its own. Whether such a skip is a failure is decided in
// one place, test/run, so that a test never has to know.
func Need(t testing.TB, name string) string {
	t.Helper()
	env := "GATEHOUSE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	if path := os.Getenv(env); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		for _, p := range DebianFor("test") {
			if p.Program == name && p.File != "" && p.newest() != "" {
				return p.newest()
			}
		}
		t.Skipf("%s is not installed and %s is not set", name, env)
	}
	return path
}
