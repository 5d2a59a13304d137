package vex

import (
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Exception is a finding that somebody has accepted on a server. All of its
// scope that is set must fit; one without any scope fits nothing.
type Exception struct {
	ID      string
	Finding string // id or alias of the finding, whatever its kind

	Project    string           // first part of the repository's path
	Repository gatehouse.Repo   // that very one
	Digest     gatehouse.Digest // of the image, or of an index that holds it
	Package    string           // package URL, or a package's name

	Reason  string
	Author  string
	Expires time.Time // zero = never
}

// ApplyExceptions returns the findings of an image in repo with Suppressed set on
// those that an exception in force at now accepts. findings is not changed.
func ApplyExceptions(findings []gatehouse.Finding, repo gatehouse.Repo, s Subject, list []Exception, now time.Time) []gatehouse.Finding {
	byID := map[string][]Exception{}
	for _, e := range list {
		if e.concerns(repo, s.Digests) && (e.Expires.IsZero() || now.Before(e.Expires)) {
			byID[strings.ToUpper(e.Finding)] = append(byID[strings.ToUpper(e.Finding)], e)
		}
	}
	if len(byID) == 0 {
		return findings
	}
	return suppress(findings, func(f gatehouse.Finding) *gatehouse.Suppression {
		for _, id := range append([]string{f.ID}, f.Aliases...) {
			for _, e := range byID[strings.ToUpper(id)] {
				if e.accepts(f, s.Distro) {
					return &gatehouse.Suppression{By: gatehouse.SuppressedByException, Reason: e.Reason, Source: e.ID, Author: e.Author, Expires: e.Expires}
				}
			}
		}
		return nil
	})
}

// Scoped reports whether e says where it holds.
func (e Exception) Scoped() bool {
	return e.Project != "" || e.Repository != "" || e.Digest != "" || e.Package != ""
}

func (e Exception) concerns(repo gatehouse.Repo, digests []gatehouse.Digest) bool {
	project, _, _ := strings.Cut(string(repo), "/")
	return e.Scoped() &&
		(e.Project == "" || e.Project == project) &&
		(e.Repository == "" || e.Repository == repo) &&
		(e.Digest == "" || slices.Contains(digests, e.Digest))
}

func (e Exception) accepts(f gatehouse.Finding, d gatehouse.Distro) bool {
	if e.Package == "" {
		return true
	}
	if u, err := gatehouse.ParsePURL(e.Package); err == nil {
		return isPackage(u, newTarget(f.Package, d), d)
	}
	return f.Package.Name != "" && e.Package == f.Package.Name
}
