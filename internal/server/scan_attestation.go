package server

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// typeBundle is the artifact type of what carries an attestation.
const typeBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"

// scanStatementMax bounds what is attested of one image, in bytes.
const scanStatementMax = 16 << 20

// scanAttestor attests the vulnerabilities of images, as `cosign attest --type vuln`
// does with the report of a scanner. Exceptions are not in it: they are of this
// server's repositories, and the statement goes wherever the image does.
type scanAttestor struct{ *Server }

// attestor is nil where nothing is to be attested.
func (s *Server) attestor() pipeline.Attestor {
	if !s.cfg.ScanAttestations {
		return nil
	}
	return scanAttestor{s}
}

// Attest implements pipeline.Attestor.
func (a scanAttestor) Attest(ctx context.Context, image gatehouse.Digest) (pipeline.Attestation, error) {
	scan, err := a.facts.scanImage(ctx, image)
	if err != nil {
		return pipeline.Attestation{}, err
	}
	if scan.Inventory == nil {
		return pipeline.Attestation{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s is not indexed", image)
	}
	gen, err := images(a).generation(ctx)
	if err != nil {
		return pipeline.Attestation{}, err
	}
	found := slices.DeleteFunc(slices.Clone(scan.Findings), func(f gatehouse.Finding) bool { return !vulnerability(f) })
	r := report.New(report.Target{Digest: image}, report.Database{Source: gen.source(), UpdatedAt: gen.UpdatedAt, Digest: gen.Digest},
		*scan.Inventory, found, report.Filter{})
	verdict, err := verdictOf(r)
	if err != nil {
		return pipeline.Attestation{}, err
	}
	return pipeline.Attestation{Verdict: verdict, Type: typeBundle,
		Sign: func(ctx context.Context, subject gatehouse.Descriptor, annotations map[string]string) ([]byte, [][]byte, error) {
			return a.sign(ctx, r, subject, annotations)
		},
	}, nil
}

// verdictOf names what a report says, without what changes by the day and changes
// no verdict: the age of the advisories, and probabilities.
func verdictOf(r report.Report) (gatehouse.Digest, error) {
	type row struct {
		ID, Package, Version, Path, Fixed, Status string
		Severity                                  gatehouse.Severity
		KEV                                       bool
	}
	doc := struct {
		Version    string // of the program: its statements may say more
		Complete   bool
		Incomplete []string
		Findings   []row
	}{Version: version(), Complete: r.Complete, Incomplete: r.IncompleteReasons}
	for _, f := range r.Findings {
		doc.Findings = append(doc.Findings, row{f.ID, f.Package.Name, f.Package.Version, f.Package.Path, f.FixedVersion, f.Status, f.Severity, f.KEV})
	}
	b, err := json.Marshal(doc)
	return gatehouse.DigestOf(b), err
}

// sign signs a report with the scanner's key.
func (a scanAttestor) sign(ctx context.Context, r report.Report, subject gatehouse.Descriptor, annotations map[string]string) ([]byte, [][]byte, error) {
	now := a.now().UTC()
	var b bytes.Buffer
	if err := report.Write(&b, "cosign-vuln", r, report.Options{Version: version(), Now: now, Started: now}); err != nil {
		return nil, nil, err
	}
	if b.Len() > scanStatementMax {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the report has %d bytes, %d at most", b.Len(), scanStatementMax)
	}
	signed, err := a.keys.Attest(ctx, keyScanner, sign.Image{Ref: gatehouse.Ref{Digest: subject.Digest}, MediaType: subject.MediaType, Size: subject.Size},
		sign.PredicateVuln, json.RawMessage(b.Bytes()), sign.Options{Now: now.Truncate(time.Second)})
	if err != nil {
		return nil, nil, err
	}
	manifest, err := annotated(signed.Manifest, annotations)
	return manifest, signed.Blobs, err
}

// annotated adds annotations to a manifest.
func annotated(manifest []byte, more map[string]string) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return nil, err
	}
	all := map[string]string{}
	if err := json.Unmarshal(doc["annotations"], &all); err != nil {
		return nil, err
	}
	for k, v := range more {
		all[k] = v
	}
	var err error
	if doc["annotations"], err = json.Marshal(all); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}
