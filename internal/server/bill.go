package server

import (
	"bytes"
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// billKey names everything that the findings of an SBOM depend on, but for
// exceptions.
type billKey struct {
	document   gatehouse.Digest
	generation int64
}

// Limits of SBOMs that policies let count: they are judged while a Pod waits.
const (
	billPackagesMax = 50_000
	billsMax        = 256  // kept in memory
	billFindingsMax = 2000 // of one that is kept
)

// Bill implements gather.Bills: it matches the packages of a verified SBOM
// with the advisories in force. What cannot be read is no error: the document is
// its authority's, and the policy denies for the gap.
func (f *facts) Bill(ctx context.Context, ref gatehouse.Ref, document []byte) (gatehouse.AddedFindings, error) {
	gen, file, release, err := f.advisories.Acquire(ctx)
	if err != nil {
		return gatehouse.AddedFindings{}, err
	}
	defer release()
	if file == nil {
		return gatehouse.AddedFindings{Incomplete: []string{"there are no advisories yet"}}, nil
	}
	key := billKey{gatehouse.DigestOf(document), gen.ID}
	f.mu.Lock()
	added, known := f.bills[key]
	f.mu.Unlock()
	inv := gatehouse.Inventory{Distro: added.Distro}
	if !known {
		inv, _, err = sbom.Read(ctx, bytes.NewReader(document), sbom.Limits{Packages: billPackagesMax})
		if gatehouse.CodeOf(err) == gatehouse.CodeInvalid || gatehouse.CodeOf(err) == gatehouse.CodeTooLarge {
			return gatehouse.AddedFindings{Incomplete: []string{err.Error()}}, nil
		}
		if err != nil {
			return gatehouse.AddedFindings{}, err
		}
		res, err := match.Findings(ctx, inv.Distro, inv.Packages, file)
		if err != nil {
			return gatehouse.AddedFindings{}, err
		}
		if err := file.Enrich(ctx, res.Findings); err != nil {
			return gatehouse.AddedFindings{}, err
		}
		added = gatehouse.AddedFindings{
			Packages: len(inv.Packages), Distro: inv.Distro, Findings: res.Findings,
			Incomplete: append(inv.Incomplete, res.Uncovered...),
		}
		f.keepBill(key, added)
	}
	if !f.isOwn(ref.Registry) {
		return added, nil // exceptions are about this server's repositories
	}
	exceptions, err := f.exceptions.of(ctx, ref.Repo)
	if err != nil {
		return gatehouse.AddedFindings{}, err
	}
	subject := vex.Subject{Digests: []gatehouse.Digest{ref.Digest}, Distro: inv.Distro}
	added.Findings = vex.ApplyExceptions(added.Findings, ref.Repo, subject, exceptions, time.Now())
	return added, nil
}

func (f *facts) keepBill(key billKey, added gatehouse.AddedFindings) {
	if len(added.Findings) > billFindingsMax {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	held := len(added.Findings)
	for _, b := range f.bills {
		held += len(b.Findings)
	}
	if len(f.bills) >= billsMax || held > scanFindingsMax {
		clear(f.bills) // as good as any: the next decisions fill it again
	}
	f.bills[key] = added
}
