package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// matcher finds what is wrong with an inventory: by a local advisory file or
// by those of a server. It adds to the inventory why its answer is not whole.
type matcher interface {
	Match(ctx context.Context, inv *gatehouse.Inventory) ([]gatehouse.Finding, report.Database, error)
	// Explain tells what the advisories say of the flaw that is called id.
	Explain(ctx context.Context, inv gatehouse.Inventory, id string) (match.Account, error)
	Close() error
}

func (a *app) matcher(o scanOptions) (matcher, error) {
	if o.server != "" {
		c, err := a.client(o.server)
		return serverMatcher{c}, err
	}
	path := filepath.Join(o.cacheDir, "advisories.db")
	var err error
	if o.db != "" || o.cacheDir == "" {
		path, err = a.advisoryFile(o.db)
	}
	if err != nil {
		return nil, err
	}
	f, err := advisory.Open(path)
	if err != nil {
		return nil, noDatabase(err, path)
	}
	return fileMatcher{f, path, o.format == "json" || o.format == "cosign-vuln", a.folder(o.cacheDir, "digests", "1", digestsKept)}, nil
}

func (a *app) advisoryFile(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	dir, err := a.cacheDir()
	return filepath.Join(dir, "advisories.db"), err
}

type fileMatcher struct {
	file   *advisory.File
	path   string
	digest bool   // say the file's digest, which means to read it whole
	known  folder // digests of files that have not changed since
}

func (m fileMatcher) Close() error { return m.file.Close() }

func (m fileMatcher) Match(ctx context.Context, inv *gatehouse.Inventory) ([]gatehouse.Finding, report.Database, error) {
	res, err := match.Findings(ctx, inv.Distro, inv.Packages, m.file)
	if err != nil {
		return nil, report.Database{}, err
	}
	if err := m.file.Enrich(ctx, res.Findings); err != nil {
		return nil, report.Database{}, err
	}
	addReasons(inv, res.Uncovered)
	meta := m.file.Meta()
	database := report.Database{Source: strings.Join(meta.Sources, ", "), UpdatedAt: meta.UpdatedAt, Overlays: meta.Overlays()}
	states := readStates(m.path)
	database.OldestFeed, database.OldestAt, _ = meta.Oldest(func(feed string) time.Time { return states[feed].LastSuccess })
	if m.digest {
		database.Digest, err = m.fileDigest()
	}
	return res.Findings, database, err
}

func (m fileMatcher) Explain(ctx context.Context, inv gatehouse.Inventory, id string) (match.Account, error) {
	return match.NewAccount(ctx, inv.Distro, inv.Packages, m.file, id)
}

// digestsKept is how many digests of advisory files are remembered.
const digestsKept = 64

// fileDigest is that of the advisory file, read once per file.
func (m fileMatcher) fileDigest() (gatehouse.Digest, error) {
	id := fileIdentity(m.path)
	name := gatehouse.DigestOf([]byte(id)).Hex() + ".json"
	var known struct {
		Identity string
		Digest   gatehouse.Digest
	}
	if id != "" && m.known.get(name, &known) && known.Identity == id {
		return known.Digest, nil
	}
	digest, err := digestOfFile(m.path)
	if err == nil && id != "" && id == fileIdentity(m.path) {
		known.Identity, known.Digest = id, digest
		m.known.put(name, known)
	}
	return digest, err
}

// digestOfFile names an advisory generation as a server does.
func digestOfFile(path string) (gatehouse.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the advisory database: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the advisory database: %w", err)
	}
	return gatehouse.NewDigest("sha256", h.Sum(nil)), nil
}

func addReasons(inv *gatehouse.Inventory, reasons []string) {
	if len(reasons) > 0 {
		inv.Complete = false
		inv.Incomplete = append(inv.Incomplete, reasons...)
	}
}

type serverMatcher struct{ *client }

func (serverMatcher) Close() error { return nil }

func (m serverMatcher) Match(ctx context.Context, inv *gatehouse.Inventory) ([]gatehouse.Finding, report.Database, error) {
	var out struct {
		Findings  []gatehouse.Finding
		Uncovered []string
		Overlays  []string
		Database  report.Database
	}
	if err := m.post(ctx, "/api/v1/match", inv, &out); err != nil {
		return nil, report.Database{}, err
	}
	addReasons(inv, out.Uncovered)
	out.Database.Overlays = out.Overlays
	return out.Findings, out.Database, nil
}

func (m serverMatcher) Explain(ctx context.Context, inv gatehouse.Inventory, id string) (out match.Account, err error) {
	b, err := json.Marshal(inv)
	if err != nil {
		return out, err
	}
	err = m.do(ctx, http.MethodPost, "/api/v1/explain", url.Values{"id": {id}}, bytes.NewReader(b), &out)
	return out, err
}
