package server

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// accept takes what exceptions accept in an image, or in all images of an index,
// out of the count. Scans that are kept in memory stay as they are.
func (f *facts) accept(ctx context.Context, m *gatehouse.Manifest, scan gather.Scan) (gather.Scan, error) {
	if scan.Inventory == nil || len(scan.Findings) == 0 {
		return scan, nil
	}
	list, err := f.exceptions.of(ctx, m.Repo)
	if err != nil {
		return gather.Scan{}, err
	}
	subject := vex.Subject{Digests: []gatehouse.Digest{m.Digest}, Distro: scan.Inventory.Distro}
	scan.Findings = vex.ApplyExceptions(scan.Findings, m.Repo, subject, list, time.Now())
	return scan, nil
}

// both is what two lists have.
func both(a, b []string) (out []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}
