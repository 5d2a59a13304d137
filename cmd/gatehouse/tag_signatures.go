package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// signaturesInfo is who signed an image, in the server's answers.
type signaturesInfo struct {
	CheckedAt  time.Time       `json:"checkedAt,omitzero"`
	Incomplete []string        `json:"incompleteReasons,omitempty"`
	Signatures []signatureInfo `json:"signatures"`
	PullPolicy struct {
		Mode    string             `json:"mode"`
		Verdict string             `json:"verdict,omitempty"`
		Reasons []gatehouse.Reason `json:"reasons,omitempty"`
	} `json:"pullPolicy"`
}

type signatureInfo struct {
	Status      string           `json:"status"`
	Signer      string           `json:"signer"`
	Artifact    gatehouse.Digest `json:"artifact"`
	Format      string           `json:"format"`
	Predicate   string           `json:"predicate,omitempty"`
	SignedAt    time.Time        `json:"signedAt,omitzero"`
	FoundAt     time.Time        `json:"foundAt"`
	Through     gatehouse.Digest `json:"through,omitempty"`
	Authorities []string         `json:"authorities,omitempty"`
	Reasons     []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"reasons,omitempty"`
}

// imageSignatures asks who signed an image of a repository.
func imageSignatures(ctx context.Context, c *client, repo gatehouse.Repo, digest gatehouse.Digest) (s signaturesInfo, err error) {
	err = c.do(ctx, "GET", "/api/v1/images/"+string(digest)+"/signatures", url.Values{"repository": {string(repo)}}, nil, &s)
	return s, err
}

// rows tell people who signed it, and whether that is what the project asks for.
func (s signaturesInfo) rows() (rows []string) {
	for _, one := range s.Signatures {
		rows = append(rows, one.row())
	}
	if len(rows) == 0 {
		rows = append(rows, "Signed:\tno")
	}
	for _, why := range s.Incomplete {
		rows = append(rows, "Not all:\t"+why)
	}
	if s.PullPolicy.Mode == gatehouse.PullOff.String() {
		return rows
	}
	line := "Pull policy:\t" + s.PullPolicy.Mode + ": " + s.PullPolicy.Verdict
	for _, r := range s.PullPolicy.Reasons {
		if r.Verdict == gatehouse.Deny {
			line += fmt.Sprintf(", %s: %s", strings.TrimPrefix(r.Policy+" "+r.Code, " "), r.Message)
			break
		}
	}
	return append(rows, line)
}

func (s signatureInfo) row() string {
	what := "Signed:"
	if s.Predicate != "" && !strings.Contains(s.Predicate, "cosign/sign") && !strings.Contains(s.Predicate, "container image signature") {
		what = "Attested:"
	}
	at, said := s.SignedAt, "at"
	if at.IsZero() { // nobody who can be trusted told when it was made
		at, said = s.FoundAt, "seen"
	}
	line := fmt.Sprintf("%s\t%s, %s, %s %s", what, s.Signer, s.Format, said, at.UTC().Format(time.RFC3339))
	if len(s.Authorities) > 0 {
		line += ", for " + strings.Join(s.Authorities, ", ")
	}
	if s.Through != "" {
		line += ", by index " + s.Through.Short()
	}
	if s.Status == "valid" {
		return line
	}
	line = strings.Replace(line, what, "Not valid:", 1)
	if len(s.Reasons) > 0 {
		line += ": " + s.Reasons[0].Code
	}
	return line
}
