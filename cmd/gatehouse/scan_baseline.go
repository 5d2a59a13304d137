package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// baselineSizeMax bounds a report that is read as a baseline, in bytes.
const baselineSizeMax = 256 << 20

// baseline is what there was before. A finding is old if the baseline has one
// of the same kind, by any of its names, on a package of the same type and name
// at the same place (the package database counts as one place), whatever the
// version: an update that does not repair a flaw brings none. Findings of files
// are old by id and place. What is there more often than before is new.
//
// A vulnerability that the baseline's advisories did not know is old, too, if
// the baseline has the very same version of the package: the build does not
// bring it.
type baseline struct {
	source   string
	had      map[string][]*bool // by each name at its place; true = found again
	packages map[string]bool    // nil: not known
}

// compareWithBaseline suppresses what the baseline has.
func (r *scanRun) compareWithBaseline(ctx context.Context) error {
	b, err := r.baseline(ctx, r.opts.baseline)
	if err != nil {
		return err
	}
	for i := range r.findings {
		f := &r.findings[i]
		if f.Suppressed == nil && b.has(*f) {
			f.Suppressed = &gatehouse.Suppression{By: gatehouse.SuppressedByBaseline, Reason: "it was there before", Source: b.source}
		}
	}
	return nil
}

// baseline reads a JSON report, or looks at an image by the advisories and
// flags of this scan.
func (r *scanRun) baseline(ctx context.Context, name string) (*baseline, error) {
	info, err := os.Stat(name)
	isFile := err == nil && !info.IsDir()
	if isFile {
		doc, ok, err := readReport(name)
		if err != nil {
			return nil, err
		}
		if ok {
			return baselineOfReport(name, doc), nil
		}
	}
	other := &scanRun{app: r.app, opts: r.opts, matcher: r.matcher}
	err = other.look(ctx, func(ctx context.Context, run *scanRun) error {
		if info != nil {
			return run.archive(ctx, name)
		}
		return noFileEither(run.find(ctx, name), name)
	})
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeOf(err), "the baseline %s cannot be looked at: %w", name, err).WithHint("%s", hintOr(err,
			"name an image, an archive, or a report that gatehouse scan --format json wrote"))
	}
	if !other.inventory.Complete {
		r.app.say("note: the baseline is incomplete, so that old findings may look new: %s", strings.Join(other.inventory.Incomplete, "; "))
	}
	b := newBaseline(name)
	for _, f := range other.findings {
		b.add(f)
	}
	b.packages = map[string]bool{}
	for _, p := range other.inventory.Packages {
		b.packages[versionKey(p)] = true
	}
	return b, nil
}

func hintOr(err error, hint string) string {
	if h := gatehouse.HintOf(err); h != "" {
		return h
	}
	return hint
}

// readReport reads a JSON report. ok is false for a file of another kind.
func readReport(name string) (doc report.Report, ok bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return doc, false, gatehouse.Errorf(gatehouse.CodeInvalid, "the baseline cannot be read: %w", err)
	}
	defer f.Close()
	head := make([]byte, 1)
	if _, err := f.ReadAt(head, 0); err != nil || head[0] != '{' {
		return doc, false, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, baselineSizeMax+1))
	if err != nil {
		return doc, false, gatehouse.Errorf(gatehouse.CodeInvalid, "the baseline cannot be read: %w", err)
	}
	if len(b) > baselineSizeMax {
		return doc, false, gatehouse.Errorf(gatehouse.CodeTooLarge, "the baseline %s has more than %d bytes", name, baselineSizeMax)
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.SchemaVersion != report.SchemaVersion {
		return doc, false, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a report of gatehouse scan --format json", name).
			WithHint("write one with: gatehouse scan --format json --list-all-pkgs -o report.json IMAGE")
	}
	return doc, true, nil
}

func newBaseline(source string) *baseline {
	return &baseline{source: source, had: map[string][]*bool{}}
}

func baselineOfReport(name string, doc report.Report) *baseline {
	b := newBaseline(name)
	for _, f := range doc.Findings {
		b.add(gatehouse.Finding{
			ID: f.ID, Aliases: f.Aliases, Kind: f.Kind, Location: f.Location,
			Package: gatehouse.Package{Type: f.Package.Type, Name: f.Package.Name, Version: f.Package.Version, Path: f.Package.Path},
		})
	}
	if doc.Packages != nil {
		b.packages = map[string]bool{}
		for _, p := range doc.Packages {
			b.packages[versionKey(gatehouse.Package{Type: p.Type, Name: p.Name, Version: p.Version, Path: p.Path})] = true
		}
	}
	return b
}

func (b *baseline) add(f gatehouse.Finding) {
	found := new(bool)
	for _, k := range placeKeys(f) {
		b.had[k] = append(b.had[k], found)
	}
}

// has reports whether f was there, and uses it up.
func (b *baseline) has(f gatehouse.Finding) bool {
	for _, k := range placeKeys(f) {
		for _, found := range b.had[k] {
			if !*found {
				*found = true
				return true
			}
		}
	}
	return f.Kind == gatehouse.KindVulnerability && b.packages[versionKey(f.Package)]
}

// placeKeys are the names of a finding at its place, its own first.
func placeKeys(f gatehouse.Finding) []string {
	place := f.Package.Path
	switch {
	case f.Package.OS():
		place = "" // there is one database, wherever a release keeps it
	case f.Package.Version != "": // names of directories and archives have it
		place = strings.ReplaceAll(place, f.Package.Version, "*")
	}
	where := strings.Join([]string{string(f.Kind), f.Package.Type, f.Package.Name, place}, "\x00")
	if l := f.Location; l != nil {
		where += "\x00" + l.Origin + "\x00" + l.Name
	}
	keys := []string{where + "\x00" + f.ID}
	for _, a := range f.Aliases {
		keys = append(keys, where+"\x00"+a)
	}
	return keys
}

func versionKey(p gatehouse.Package) string {
	place := p.Path
	if p.OS() {
		place = ""
	}
	return fmt.Sprintf("%s\x00%s\x00%s\x00%s", p.Type, p.Name, p.Version, place)
}
