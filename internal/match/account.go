package match

import (
	"context"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Account is what all records that speak of one flaw say, of one image and of
// anything else: what a person needs to see why it is or is not found.
type Account struct {
	Names    []string     `json:"names"`    // all that the flaw is called
	Records  []string     `json:"records"`  // that speak of it, whatever is installed
	Packages []string     `json:"packages"` // that those speak of, the first few: "npm lodash"
	Compared []Comparison `json:"compared"` // see [Explain]
}

// Library is advisories whose records can be had whole, by their ids.
type Library interface {
	Advisories
	// Record returns one record. CodeNotFound: there is none.
	Record(ctx context.Context, id string) (gatehouse.Advisory, error)
}

const (
	// roundsMax is how far names lead to other names: names of names of names.
	roundsMax = 3
	// namesMax bounds what one flaw may be called; a feed could chain all of its
	// records.
	namesMax = 500
	// packagesMax bounds the packages that an account names.
	packagesMax = 20
)

// NewAccount looks up what is called id and compares it with the packages of one
// image. An id that nothing is called is tried as its publisher writes it, too:
// people type "cve-2024-1234". Errors are those of adv.
func NewAccount(ctx context.Context, distro gatehouse.Distro, pkgs []gatehouse.Package, adv Library, id string) (Account, error) {
	a := Account{Records: []string{}, Packages: []string{}, Compared: []Comparison{}}
	for _, name := range spellings(id) {
		a.Names = []string{name}
		if err := a.findRecords(ctx, adv); err != nil {
			return a, err
		}
		if len(a.Records) > 0 {
			break
		}
	}
	if len(a.Records) == 0 {
		a.Names = []string{id}
		return a, nil
	}
	if err := a.findPackages(ctx, adv); err != nil {
		return a, err
	}
	compared, err := Explain(ctx, distro, pkgs, adv, a.Names)
	a.Compared = append(a.Compared, compared...)
	return a, err
}

// spellings are how an id may be meant.
func spellings(id string) []string {
	out := []string{id}
	prefix, rest, ok := strings.Cut(id, "-")
	if !ok {
		return out
	}
	usual := strings.ToUpper(id)
	if strings.EqualFold(prefix, "GHSA") {
		usual = "GHSA-" + strings.ToLower(rest)
	}
	if usual != id {
		out = append(out, usual)
	}
	return out
}

// findRecords follows the names of the flaw from record to record.
func (a *Account) findRecords(ctx context.Context, adv Library) error {
	asked := map[string]bool{}
	for range roundsMax {
		for _, name := range slices.Clone(a.Names) {
			if asked[name] || len(asked) >= namesMax {
				continue
			}
			asked[name] = true
			list, err := adv.Named(ctx, name)
			if err != nil {
				return err
			}
			for _, r := range list {
				a.Records = append(a.Records, r.ID)
				a.Names = append(append(a.Names, r.ID), r.Aliases...)
			}
		}
		slices.Sort(a.Names)
		a.Names = slices.Compact(a.Names)
		a.Names = a.Names[:min(len(a.Names), namesMax)]
	}
	slices.Sort(a.Records)
	a.Records = slices.Compact(a.Records)
	return nil
}

// findPackages lists what the records speak of.
func (a *Account) findPackages(ctx context.Context, adv Library) error {
	for _, id := range a.Records[:min(len(a.Records), packagesMax)] {
		r, err := adv.Record(ctx, id)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range r.Affected {
			if p := f.Space + " " + f.Name; len(a.Packages) < packagesMax && !slices.Contains(a.Packages, p) {
				a.Packages = append(a.Packages, p)
			}
		}
	}
	return nil
}
