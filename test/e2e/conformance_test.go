package e2e_test

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
)

// officialSuite finds the binary of the OCI conformance suite. It is not pinned
// and built like other programs, because it has no release as a Go module:
// docs/conformance.md says how to get it.
func officialSuite(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("GATEHOUSE_OCI_CONFORMANCE"); path != "" {
		return path
	}
	path, err := exec.LookPath("oci-conformance")
	if err != nil {
		t.Skip("the official OCI conformance suite is not here; docs/conformance.md says how to build it, GATEHOUSE_OCI_CONFORMANCE names it")
	}
	return path
}

// junit is what counts of the suite's junit.xml.
type junit struct {
	XMLName  xml.Name `xml:"testsuites"`
	Tests    int      `xml:"tests,attr"`
	Errors   int      `xml:"errors,attr"`
	Failures int      `xml:"failures,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Disabled int      `xml:"disabled,attr"`
	Cases    []struct {
		Name    string    `xml:"name,attr"`
		Class   string    `xml:"classname,attr"`
		Failure *struct{} `xml:"failure"`
		Error   *struct{} `xml:"error"`
	} `xml:"testsuite>testcase"`
}

// TestOfficialConformance runs the suite of opencontainers/distribution-spec
// against a real server with accounts, and wants no failure.
func TestOfficialConformance(t *testing.T) {
	suite := officialSuite(t)
	g := e2e.ReserveGatehouse(t)
	g.Start(t, "--sbom-referrers=false") // the suite counts referrers
	for _, version := range []string{"1.1", "dev"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), suite)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "OCI_VERSION="+version, "OCI_REGISTRY="+g.Host, "OCI_TLS=disabled", "OCI_RESULTS_DIR="+dir,
				"OCI_REPO1=conformance/"+strings.ReplaceAll(version, ".", "-")+"/one", "OCI_REPO2=conformance/"+strings.ReplaceAll(version, ".", "-")+"/two",
				"OCI_USERNAME=admin", "OCI_PASSWORD="+e2e.AdminPassword, "PWD="+dir)
			out, runErr := cmd.CombinedOutput() // fails for what is only skipped as well: the file decides
			text, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
			if err != nil {
				t.Fatalf("no results: %v (%v)\n%.4000s", err, runErr, out)
			}
			var result junit
			if err := xml.Unmarshal(text, &result); err != nil {
				t.Fatal(err)
			}
			t.Logf("OCI_VERSION=%s: %d checks, %d failed, %d errors, %d skipped, %d disabled",
				version, result.Tests, result.Failures, result.Errors, result.Skipped, result.Disabled)
			const checksMin = 500 // fewer mean that it stopped early
			if result.Failures != 0 || result.Errors != 0 || result.Tests < checksMin {
				t.Errorf("the official suite is not content (%v)\n%.8000s", runErr, out)
			}
			for _, c := range result.Cases {
				if c.Failure != nil || c.Error != nil {
					t.Errorf("%s %s", c.Class, c.Name)
				}
			}
		})
	}
}
