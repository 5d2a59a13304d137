package advisory_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
)

// BenchmarkBuild makes a first generation of 300,000 records, then reads the
// same feed again with one record in a thousand changed.
func BenchmarkBuild(b *testing.B) {
	const records = 300_000
	feed := func(generation int) gatehouse.Publication {
		return gatehouse.Publication{Feed: "trivy-db", Format: "trivy-db", Whole: true, Records: func(yield func(gatehouse.Advisory, error) bool) {
			for i := range records {
				a := adv(fmt.Sprintf("DEBIAN-CVE-%d-%d", 2005+i%20, 1000+i), upstream(fmt.Sprintf("CVE-%d-%d", 2005+i%20, 1000+i)),
					fmt.Sprintf("Debian:11 package-%d", i%20000), fmt.Sprintf("Debian:12 package-%d", i%20000), fmt.Sprintf("Debian:13 package-%d", i%20000), fmt.Sprintf("Debian:13 package-%d-doc", i%20000))
				a.Summary, a.Severity, a.SeveritySource = fmt.Sprintf("flaw number %d of a package", i), gatehouse.Severity(i%6), "debian"
				if i%1000 == 0 {
					a.Affected[0].Ranges[0].Events[1].Fixed = fmt.Sprint(generation)
				}
				if !yield(a, nil) {
					return
				}
			}
		}}
	}
	for i := range b.N {
		dir := b.TempDir()
		first, second := filepath.Join(dir, "1.db"), filepath.Join(dir, "2.db")
		if _, err := advisory.BuildAll(context.Background(), first, "", advisory.Info{}, []gatehouse.Publication{feed(i)}); err != nil {
			b.Fatal(err)
		}
		b.Logf("first after %v", b.Elapsed())
		m, err := advisory.BuildAll(context.Background(), second, first, advisory.Info{Parent: gatehouse.DigestOf(nil)}, []gatehouse.Publication{feed(i + 5)})
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("second after %v: %d of %d names changed", b.Elapsed(), m.Changed, m.Names)
	}
}
