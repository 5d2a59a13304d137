package server

import (
	"bytes"
	"context"
	"slices"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

// gatekeeperGroups is part of every document that is read otherwise at another
// enforcement point.
const gatekeeperGroups = "gatekeeper.sh/"

// at is the set for what runs. Where no document is of Gatekeeper, or the set is not
// whole, it is the one of the webhook.
func (p *auditPolicies) at(ctx context.Context, webhook decide.PolicySet) (decide.PolicySet, error) {
	if !webhook.Complete {
		return webhook, nil
	}
	var docs []db.Policy
	err := p.db.Get(ctx, func(tx *db.Tx) (err error) {
		docs, _, err = p.documents(ctx, tx)
		return err
	})
	if err != nil {
		return webhook, err
	}
	files := p.with(docs, "", nil)
	if !slices.ContainsFunc(files, func(f load.File) bool { return bytes.Contains(f.Data, []byte(gatekeeperGroups)) }) {
		return webhook, nil
	}
	loader := p.loader()
	loader.Point = constraint.PointAudit
	set, _ := loader.Load(files, p.noMatch)
	set.Names = p.ourNames()
	return set, nil
}
