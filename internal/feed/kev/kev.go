// Package kev reads CISA's catalog of known exploited vulnerabilities: one JSON
// document goes in, a table by CVE comes out.
package kev

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

const (
	bytesMax   = 64 << 20 // the catalog has 1.5 MB
	entriesMax = 1_000_000
)

type catalog struct {
	DateReleased    string `json:"dateReleased"`
	Count           *int   `json:"count"`
	Vulnerabilities []struct {
		CVE        string `json:"cveID"`
		Added      string `json:"dateAdded"`
		Due        string `json:"dueDate"`
		Ransomware string `json:"knownRansomwareCampaignUse"`
	} `json:"vulnerabilities"`
}

// Read reads the catalog and when it was released. An entry listed twice counts
// with its later line. Errors: CodeInvalid, also for a catalog that has not as
// many entries as it counts, and CodeTooLarge.
func Read(r io.Reader) (table map[string]gatehouse.KEV, released time.Time, err error) {
	b, err := io.ReadAll(unpack.Bounded(r, bytesMax))
	if err != nil {
		return nil, released, err
	}
	var c catalog
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &c); err != nil {
		return nil, released, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no KEV catalog: %w", err)
	}
	switch {
	case len(c.Vulnerabilities) == 0:
		return nil, released, gatehouse.Errorf(gatehouse.CodeInvalid, "the KEV catalog holds no vulnerability")
	case len(c.Vulnerabilities) > entriesMax:
		return nil, released, gatehouse.Errorf(gatehouse.CodeTooLarge, "the KEV catalog has more than %d entries", entriesMax)
	case c.Count != nil && *c.Count != len(c.Vulnerabilities):
		return nil, released, gatehouse.Errorf(gatehouse.CodeInvalid, "the KEV catalog has %d entries and says that it has %d", len(c.Vulnerabilities), *c.Count)
	}
	if released, err = field.Time("dateReleased", c.DateReleased); err != nil {
		return nil, released, err
	}
	table = make(map[string]gatehouse.KEV, len(c.Vulnerabilities))
	for i, v := range c.Vulnerabilities {
		one := gatehouse.KEV{Ransomware: v.Ransomware == "Known"}
		if one.Added, err = date(v.Added); err == nil && v.Due != "" {
			one.Due, err = date(v.Due)
		}
		if err == nil {
			err = field.CVE(v.CVE)
		}
		if err != nil {
			return nil, released, gatehouse.Errorf(gatehouse.CodeInvalid, "vulnerabilities[%d]: %w", i, err)
		}
		table[v.CVE] = one
	}
	return table, released, nil
}

func date(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return t, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not a date such as 2026-01-31", field.Clip(s))
	}
	return t, nil
}
