package load_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

const somePEM = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC\nVqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==\n-----END PUBLIC KEY-----\n"

// TestPolicyLimits hits every limit of one policy; one less passes.
func TestPolicyLimits(t *testing.T) {
	cip := func(images, authorities, keys int) string {
		var b strings.Builder
		b.WriteString("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: x}\nspec:\n  images:\n")
		b.WriteString(strings.Repeat("  - glob: a\n", images))
		b.WriteString("  authorities:\n")
		for range authorities {
			b.WriteString("  - static: {action: pass}\n")
		}
		if keys > 0 {
			fmt.Fprintf(&b, "  - key: {data: %q}\n", strings.Repeat(somePEM, keys))
		}
		return b.String()
	}
	rule := func(images, ignored int) string {
		return "apiVersion: gatehouse.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: x}\nspec:\n  images:\n" + strings.Repeat("  - glob: a\n", images) +
			"  vulnerabilities:\n    maxSeverity: HIGH\n    ignore:\n" + strings.Repeat("    - CVE-1\n", ignored)
	}
	for name, tt := range map[string]struct {
		fits, exceeds, says string
	}{
		"images":       {cip(1_000, 1, 0), cip(1_001, 1, 0), "1000 images and 100 authorities are allowed"},
		"authorities":  {cip(1, 100, 0), cip(1, 101, 0), "1000 images and 100 authorities are allowed"},
		"keys":         {cip(1, 0, 50), cip(1, 0, 51), "more than 50 keys"},
		"rule images":  {rule(1_000, 1), rule(1_001, 1), "1001 entries, 1000 are allowed"},
		"rule ignored": {rule(1, 10_000), rule(1, 10_001), "10001 entries, 10000 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			if set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(tt.fits)}}, gatehouse.Deny); !set.Complete {
				t.Errorf("what fits is refused: %v", problems)
			}
			set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(tt.exceeds)}}, gatehouse.Deny)
			if set.Complete || !strings.Contains(fmt.Sprint(problems), tt.says) {
				t.Errorf("complete=%v, want %q: %v", set.Complete, tt.says, problems)
			}
		})
	}
}

func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 2_001 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, problems := load.Read(dir)
	if len(files) != 2_000 || len(problems) != 1 || !strings.Contains(problems[0].Message, "more than 2000 files") {
		t.Errorf("%d files, %v", len(files), problems)
	}
}

// TestManyImagesAreReadOnce: spec.match looks into the object, which must not
// be read again for each of its images. It took minutes when it was.
func TestManyImagesAreReadOnce(t *testing.T) {
	set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: x}
spec:
  images: [{glob: "**"}]
  match: [{resource: pods, selector: {matchLabels: {app: web}}}]
  authorities: [{static: {action: pass}}]
`)}}, gatehouse.Deny)
	if !set.Complete {
		t.Fatal(problems)
	}
	object := `{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"web"}},"spec":{"x":[1` + strings.Repeat(",1", 80_000) + `],
		"containers":[{"image":"a"}` + strings.Repeat(`,{"image":"a"}`, 1_999) + `]}}`
	req := gatehouse.Request{Operation: "CREATE", Object: []byte(object), Now: time.Unix(1, 0)}
	req.Images = set.Images(req)
	start := time.Now()
	d := decide.Decide(t.Context(), set, req)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%s", took)
	}
	if d.Verdict != gatehouse.Allow || len(req.Images) != 2_000 {
		t.Errorf("%s of %d images: %v", d.Verdict, len(req.Images), d.Reasons[0])
	}
}
