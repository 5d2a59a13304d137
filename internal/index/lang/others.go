package lang

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/depsjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/ruby/gemspec"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// GemSizeMax, DotNetSizeMax and ComposerSizeMax are the largest files in
	// bytes that are read.
	GemSizeMax      = 1 << 20
	DotNetSizeMax   = 4 << 20
	ComposerSizeMax = 32 << 20
)

// Gem reads the specification of an installed Ruby gem.
func Gem(ctx context.Context, name string, r *io.SectionReader) ([]gatehouse.Package, error) {
	packages, err := run(ctx, gemspec.New, nil, name, r, r.Size())
	if err == nil && len(packages) == 0 {
		return nil, errors.New("file has no specification in the form that RubyGems installs")
	}
	if err == nil {
		packages[0].Licenses = gemLicenses(r)
	}
	return packages, err
}

// gemLicenses reads the line "s.licenses = ["MIT".freeze]", which RubyGems
// writes; a specification in another form has none for us.
func gemLicenses(r *io.SectionReader) []string {
	content, err := readAll(r, GemSizeMax)
	if err != nil {
		return nil
	}
	var licenses []string
	_ = lines(content, func(line string) error {
		_, value, ok := strings.Cut(line, ".license")
		value = strings.TrimLeft(strings.TrimPrefix(value, "s"), " ")
		if !ok || !strings.HasPrefix(value, "=") || len(licenses) > 0 {
			return nil
		}
		// What stands between double quotes: every second part.
		const partsMax = 33
		for i, part := range strings.SplitN(value, `"`, partsMax) {
			if i%2 == 1 {
				licenses = append(licenses, part)
			}
		}
		return nil
	})
	return licenses
}

// DotNet reads the libraries of a *.deps.json. Errors: ErrOther for JSON of
// another kind with that name.
func DotNet(ctx context.Context, name string, r *io.SectionReader) ([]gatehouse.Package, error) {
	content, err := readAll(r, DotNetSizeMax)
	if err != nil {
		return nil, err
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	var probe struct {
		Libraries map[string]struct {
			Type string `json:"type"`
		} `json:"libraries"`
		RuntimeTarget json.RawMessage `json:"runtimeTarget"`
	}
	if err := json.Unmarshal(content, &probe); err != nil && probe.RuntimeTarget == nil {
		return nil, ErrOther
	}
	if len(probe.Libraries) == 0 {
		if probe.RuntimeTarget == nil {
			return nil, ErrOther
		}
		return nil, nil
	}
	found, err := run(ctx, depsjson.New, nil, name, bytes.NewReader(content), int64(len(content)))
	packages := found[:0]
	for _, p := range found {
		// A "project" is the program itself, of which nobody publishes.
		if kind := probe.Libraries[p.Name+"/"+p.Version].Type; kind == "project" {
			continue
		}
		p.Name = strings.TrimPrefix(p.Name, "runtimepack.")
		packages = append(packages, p)
	}
	return packages, err
}

// Composer reads vendor/composer/installed.json, of Composer 1 (a list) or 2
// (a list in "packages"). osv-scalibr reads only lock files, which say what
// was meant to be installed.
func Composer(r *io.SectionReader, max int) ([]gatehouse.Package, error) {
	in := json.NewDecoder(io.LimitReader(r, ComposerSizeMax))
	first, err := in.Token()
	if err != nil {
		return nil, fmt.Errorf("installed.json: %w", err)
	}
	if first == json.Delim('{') {
		if err := toPackages(in); err != nil {
			return nil, err
		}
	} else if first != json.Delim('[') {
		return nil, errors.New("installed.json is neither a list nor an object")
	}
	var packages []gatehouse.Package
	for in.More() {
		var p map[string]json.RawMessage
		if err := in.Decode(&p); err != nil {
			return packages, fmt.Errorf("installed.json: %w", err)
		}
		var name, version string
		for key, to := range map[string]*string{"name": &name, "version": &version} {
			if raw, ok := p[key]; ok {
				if err := json.Unmarshal(raw, to); err != nil {
					return packages, fmt.Errorf("installed.json: %w", err)
				}
			}
		}
		if name == "" || version == "" {
			continue
		}
		if len(packages) >= max {
			return packages, fmt.Errorf("installed.json has more than %d packages", max)
		}
		packages = append(packages, gatehouse.Package{
			Type: "composer", Name: name, Version: version, Licenses: npmLicenses(p["license"]),
		})
	}
	return packages, nil
}

// toPackages goes on to the list that is the value of "packages".
func toPackages(in *json.Decoder) error {
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fmt.Errorf("installed.json: %w", err)
		}
		if key == "packages" {
			if t, err := in.Token(); err != nil || t != json.Delim('[') {
				return errors.New("installed.json: packages is no list")
			}
			return nil
		}
		var skip json.RawMessage
		if err := in.Decode(&skip); err != nil {
			return fmt.Errorf("installed.json: %w", err)
		}
	}
	return errors.New("installed.json has no packages")
}
