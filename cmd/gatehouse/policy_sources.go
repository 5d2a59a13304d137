package main

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// policySources is where policy test gets facts about images from: signatures
// and digests from the image's registry, packages from its layers, findings
// from an advisory file or a server. The returned function closes what was
// opened. An advisory file that is named must be there; without one, rules that
// need findings deny and say why.
func (a *app) policySources(o policyTestOptions) (gather.Sources, func(), error) {
	f := &registryFacts{app: a, client: a.registryClient(o.insecure, o.server)}
	m, err := a.matcher(scanOptions{db: o.db, server: o.server})
	switch {
	case err == nil:
		f.matcher = m
	case o.db != "" || o.server != "":
		return gather.Sources{}, nil, err
	default:
		f.noMatcher = err
	}
	done := func() {
		if f.matcher != nil {
			_ = f.matcher.Close() // it was only read
		}
	}
	return gather.Sources{Resolver: f, Verifier: f, Scanner: f, Configs: f, Bills: f, Platforms: f}, done, nil
}

// registryFacts answers from other registries. It is safe for concurrent use.
type registryFacts struct {
	app       *app
	client    *fetch.Client
	matcher   matcher // nil: see noMatcher
	noMatcher error
}

// Resolve implements gather.Resolver.
func (f *registryFacts) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	m, err := f.client.Resolve(ctx, ref)
	if err != nil {
		return "", err
	}
	return m.Digest, nil
}

// Verify implements gather.Verifier.
func (f *registryFacts) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	v := verify.Verifier{Now: time.Now, Sources: func(registry string) (verify.Source, error) { return f.client.Registry(registry), nil }}
	return v.Image(ctx, f.client.Registry(ref.Registry), ref, need)
}

// Config implements gather.Configs.
func (f *registryFacts) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	img, err := f.client.Image(ctx, ref, fetch.Platform{})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	return img.Config, nil
}

// Platforms implements gather.Platforms.
func (f *registryFacts) Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error) {
	return gather.ReadPlatforms(ctx, f.client.Registry(ref.Registry), ref)
}

// Scan implements gather.Scanner: it reads the layers, or what the layer cache
// knows of them.
func (f *registryFacts) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	if f.matcher == nil {
		return gather.Scan{}, unavailable(f.noMatcher)
	}
	img, err := f.client.Image(ctx, ref, fetch.Platform{})
	if err != nil {
		return gather.Scan{}, err
	}
	defer img.Close()
	run := &scanRun{app: f.app, opts: scanOptions{noProgress: true}}
	if err := run.image(ctx, img, true); err != nil {
		return gather.Scan{}, err
	}
	findings, database, err := f.matcher.Match(ctx, &run.inventory)
	if err != nil {
		return gather.Scan{}, unavailable(err)
	}
	return gather.Scan{
		Inventory: &run.inventory, Findings: append(findings, run.inventory.Findings...),
		Complete: run.inventory.Complete, Incomplete: run.inventory.Incomplete,
		FeedAt: database.UpdatedAt, Overlays: database.Overlays,
		Partial: map[gatehouse.Kind][]string{gatehouse.KindMalware: {"only a server looks for malware"}},
	}, nil
}

// Bill implements gather.Bills.
func (f *registryFacts) Bill(ctx context.Context, _ gatehouse.Ref, document []byte) (gatehouse.AddedFindings, error) {
	if f.matcher == nil {
		return gatehouse.AddedFindings{}, unavailable(f.noMatcher)
	}
	inv, _, err := sbom.Read(ctx, bytes.NewReader(document), sbom.Limits{})
	if gatehouse.CodeOf(err) == gatehouse.CodeInvalid || gatehouse.CodeOf(err) == gatehouse.CodeTooLarge {
		return gatehouse.AddedFindings{Incomplete: []string{err.Error()}}, nil
	}
	if err != nil {
		return gatehouse.AddedFindings{}, err
	}
	findings, _, err := f.matcher.Match(ctx, &inv)
	if err != nil {
		return gatehouse.AddedFindings{}, unavailable(err)
	}
	return gatehouse.AddedFindings{Packages: len(inv.Packages), Distro: inv.Distro, Findings: findings, Incomplete: inv.Incomplete}, nil
}

// unavailable keeps what is wrong with the advisories from reading as if the
// image were not there.
func unavailable(err error) error {
	var e *gatehouse.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Code = gatehouse.CodeUnavailable
	return &c
}
