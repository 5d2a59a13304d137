package report_test

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// contrib finds the templates that Trivy brings, in the module cache where the
// bench has put them.
func contrib(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_TRIVY_CONTRIB")
	if dir == "" {
		out, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			t.Skip("Trivy's templates are not here: ", err)
		}
		dir = filepath.Join(strings.TrimSpace(string(out)), "github.com", "aquasecurity", "trivy@*", "contrib")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tpl"))
	if err != nil || len(files) == 0 {
		t.Skip("Trivy's templates are not in the module cache and GATEHOUSE_TRIVY_CONTRIB is not set")
	}
	return files
}

// TestTrivysContrib runs Trivy's own templates as they are.
func TestTrivysContrib(t *testing.T) {
	r := sample(report.Filter{})
	for i := range r.Findings { // these templates escape less than ours
		f := &r.Findings[i]
		f.Title, f.Description, f.References = strings.Map(letters, f.Title), strings.Map(letters, f.Description), []string{"https://example.com/a"}
		if f.Location != nil {
			f.Location.Excerpt = strings.Map(letters, f.Location.Excerpt)
		}
		f.Package.Path = strings.Map(letters, f.Package.Path)
	}
	env := map[string]string{"AWS_REGION": "eu-central-1", "AWS_ACCOUNT_ID": "1"}
	for _, file := range contrib(t) {
		text, err := report.LoadTemplate("@" + file)
		if err != nil {
			t.Fatal(err)
		}
		out := render(t, "template", r, report.Options{Template: text, Getenv: func(k string) string { return env[k] }})
		name := filepath.Base(file)
		for _, want := range []string{"CVE-2024-1", "openssl"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not speak of %s:\n%s", name, want, out)
			}
		}
		switch name {
		case "junit.tpl":
			if err := xml.Unmarshal([]byte(out), &struct{}{}); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		case "html.tpl":
		default:
			parse(t, out)
		}
	}
}

func letters(r rune) rune {
	if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./-_", r) {
		return r
	}
	return -1
}
