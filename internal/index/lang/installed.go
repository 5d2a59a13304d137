package lang

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// CondaSizeMax, CRANSizeMax and BitnamiSizeMax are the largest files in
	// bytes that are read.
	CondaSizeMax   = 16 << 20
	CRANSizeMax    = 1 << 20
	BitnamiSizeMax = 16 << 20
)

// Conda reads conda-meta/NAME.json of an installed conda package. Such packages
// have versions of their own and are not those of PyPI, whatever their name;
// osv-scalibr's extractor says that they are.
func Conda(r *io.SectionReader) ([]gatehouse.Package, error) {
	content, err := readAll(r, CondaSizeMax)
	if err != nil {
		return nil, err
	}
	var p map[string]json.RawMessage
	if err := json.Unmarshal(content, &p); err != nil {
		return nil, fmt.Errorf("conda-meta: %w", err)
	}
	name, version := text(p["name"]), text(p["version"])
	if name == "" || version == "" {
		return nil, ErrOther
	}
	return []gatehouse.Package{{Type: "conda", Name: name, Version: version, Licenses: npmLicenses(p["license"])}}, nil
}

// CRAN reads the DESCRIPTION of an installed R package (R packages manual, "The
// DESCRIPTION file"). Errors: ErrOther for one that is not installed, or that is
// part of R itself.
func CRAN(r *io.SectionReader) ([]gatehouse.Package, error) {
	content, err := readAll(r, CRANSizeMax)
	if err != nil {
		return nil, err
	}
	var p gatehouse.Package
	built, base := false, false
	_ = lines(content, func(line string) error {
		key, value, ok := strings.Cut(line, ":")
		if !ok || line[0] == ' ' || line[0] == '\t' {
			return nil
		}
		value = strings.TrimSpace(value)
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "License":
			p.Licenses = []string{value}
		case "Built": // R writes it when it installs
			built = true
		case "Priority":
			base = value == "base"
		}
		return nil
	})
	if !built || base || p.Name == "" || p.Version == "" {
		return nil, ErrOther
	}
	p.Type = "cran"
	return []gatehouse.Package{p}, nil
}

// Bitnami reads the SPDX file that a Bitnami image has for each of its
// components (/opt/bitnami/NAME/.spdx-NAME.spdx) and keeps what has a purl of
// type bitnami: the component itself, which no package manager knows.
func Bitnami(r *io.SectionReader) ([]gatehouse.Package, error) {
	content, err := readAll(r, BitnamiSizeMax)
	if err != nil {
		return nil, err
	}
	in := json.NewDecoder(bytes.NewReader(content))
	var packages []gatehouse.Package
	err = object(in, func(key string) error {
		if key != "packages" {
			return skip(in)
		}
		return list(in, func() error {
			var p struct {
				License string `json:"licenseConcluded"`
				Refs    []struct {
					Type    string `json:"referenceType"`
					Locator string `json:"referenceLocator"`
				} `json:"externalRefs"`
			}
			if err := value(in, &p); err != nil {
				return err
			}
			for _, ref := range p.Refs {
				if name, version, ok := bitnamiPURL(ref.Locator); ok && ref.Type == "purl" {
					const packagesMax = 1000
					if len(packages) >= packagesMax {
						return errTooMany
					}
					packages = append(packages, gatehouse.Package{Type: "bitnami", Name: name, Version: version, Licenses: spdxLicense(p.License)})
				}
			}
			return nil
		})
	})
	if err != nil {
		return packages, fmt.Errorf("SPDX file: %w", err)
	}
	if len(packages) == 0 {
		return nil, ErrOther
	}
	return packages, nil
}

// spdxLicense leaves out what SPDX calls unknown.
func spdxLicense(s string) []string {
	if s == "" || s == "NOASSERTION" || s == "NONE" {
		return nil
	}
	return []string{s}
}

// bitnamiPURL parses pkg:bitnami/name@version?qualifiers.
func bitnamiPURL(s string) (name, version string, ok bool) {
	rest, ok := strings.CutPrefix(s, "pkg:bitnami/")
	if !ok {
		return "", "", false
	}
	rest, _, _ = strings.Cut(rest, "?")
	name, version, _ = strings.Cut(rest, "@")
	version, err := url.PathUnescape(version)
	if err != nil || name == "" || version == "" {
		return "", "", false
	}
	return name, version, true
}
