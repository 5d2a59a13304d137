package report

import (
	"cmp"
	"io"
	"net/url"
	"time"
)

// The predicate https://cosign.sigstore.dev/attestation/vuln/v1, which `cosign
// attest --type vuln` signs (cosign specs/COSIGN_VULN_ATTESTATION_SPEC.md).
type (
	vulnPredicate struct {
		Invocation vulnInvocation `json:"invocation"`
		Scanner    vulnScanner    `json:"scanner"`
		Metadata   vulnMetadata   `json:"metadata"`
	}
	vulnInvocation struct {
		// Parameters are not told: a command line may hold a password.
		Parameters []string `json:"parameters"`
		URI        string   `json:"uri"`
		EventID    string   `json:"event_id"`
		BuilderID  string   `json:"builder.id"`
	}
	vulnScanner struct {
		URI      string       `json:"uri"`
		Version  string       `json:"version"`
		Database vulnDatabase `json:"db"`
		Result   Report       `json:"result"`
	}
	vulnDatabase struct {
		URI     string `json:"uri"`
		Version string `json:"version"`
	}
	vulnMetadata struct {
		Started  time.Time `json:"scanStartedOn"`
		Finished time.Time `json:"scanFinishedOn"`
	}
)

// writeCosignVuln writes the predicate alone: whoever signs it adds the digest of
// the image. The result is the whole JSON report, so that what is incomplete
// stays so.
func writeCosignVuln(w io.Writer, r Report, o Options) error {
	p := vulnPredicate{
		Invocation: vulnInvocationOf(o),
		Scanner: vulnScanner{
			URI: "pkg:github/gatehouse-dev/gatehouse@" + url.PathEscape(cmp.Or(o.Version, "unknown")), Version: o.Version,
			Database: vulnDatabase{URI: r.Database.Source, Version: string(r.Database.Digest)}, Result: r,
		},
		Metadata: vulnMetadata{Started: o.Started.UTC().Truncate(time.Second), Finished: o.Now.UTC().Truncate(time.Second)},
	}
	if o.Started.IsZero() {
		p.Metadata.Started = p.Metadata.Finished
	}
	return encode(w, p)
}

// vulnInvocationOf tells of the CI job, as far as its variables do.
func vulnInvocationOf(o Options) vulnInvocation {
	v := vulnInvocation{Parameters: []string{}}
	switch {
	case o.env("GITHUB_ACTIONS") == "true":
		v.BuilderID, v.EventID = "github actions", o.env("GITHUB_RUN_ID")
		v.URI = o.env("GITHUB_SERVER_URL") + "/" + o.env("GITHUB_REPOSITORY") + "/actions/runs/" + v.EventID
	case o.env("GITLAB_CI") == "true":
		v.BuilderID, v.EventID, v.URI = "gitlab ci", o.env("CI_JOB_ID"), o.env("CI_JOB_URL")
	}
	return v
}
