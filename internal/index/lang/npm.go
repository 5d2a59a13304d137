package lang

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// NPMSizeMax is the largest package.json in bytes that is read.
const NPMSizeMax = 4 << 20

// NPM reads the package.json of an installed package.
//
// osv-scalibr's extractor is not used: it refuses the whole file when a field
// that nobody needs has another type than it expects ("contributors": "me",
// "dependencies": [], both common), and it leaves out packages that have a
// field "contributes" or "unity", so that one line would hide a package. It is
// the oracle of the tests.
func NPM(r *io.SectionReader) ([]gatehouse.Package, error) {
	content, err := readAll(r, NPMSizeMax)
	if err != nil {
		return nil, err
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	// By name: a struct would take "Version" for "version", which no npm does.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(content, &fields); err != nil {
		return nil, fmt.Errorf("package.json: %w", err)
	}
	name, version := text(fields["name"]), strings.TrimLeft(text(fields["version"]), "=v ")
	if name == "" || version == "" {
		return nil, nil // not a package: a marker like {"type": "module"}
	}
	return []gatehouse.Package{{
		Type: "npm", Name: name, Version: version,
		Licenses: append(npmLicenses(fields["license"]), npmLicenses(fields["licenses"])...),
	}}, nil
}

// text returns a JSON string, "" for anything else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return strings.TrimSpace(s)
}

// npmLicenses reads "MIT", {"type": "MIT"} and lists of them.
func npmLicenses(raw json.RawMessage) []string {
	if s := text(raw); s != "" {
		return []string{s}
	}
	var one struct {
		Type json.RawMessage `json:"type"`
	}
	if json.Unmarshal(raw, &one) == nil {
		if s := text(one.Type); s != "" {
			return []string{s}
		}
		return nil
	}
	const listMax, bytesMax = 16, 64 << 10
	if len(raw) > bytesMax {
		return nil
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	var all []string
	for _, item := range list[:min(len(list), listMax)] {
		if !bytes.HasPrefix(bytes.TrimSpace(item), []byte("[")) { // lists do not nest
			all = append(all, npmLicenses(item)...)
		}
	}
	return all
}
