package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

func TestAttestations(t *testing.T) {
	const vuln = "https://cosign.sigstore.dev/attestation/vuln/v1"
	w := newWorld(t, true)
	k, pem := ephemeral(t)
	w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, vuln))))
	w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, signPredicate))))
	// As `cosign attest` before version 3 wrote it, with a foreign signature in front.
	payload := statementFor(w.image.Ref.Digest, vuln)
	sig, _, err := k.SignData(t.Context(), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(payload), payload))
	if err != nil {
		t.Fatal(err)
	}
	envelope, _ := json.Marshal(map[string]any{"payloadType": inToto, "payload": payload, "signatures": []any{map[string]any{"sig": []byte("no")}, map[string]any{"keyid": "", "sig": sig}}})
	w.manifest("sha256-"+w.image.Ref.Digest.Hex()+".att", map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": w.blob([]byte("{}")), "layers": []any{w.layer("application/vnd.dsse.envelope.v1+json", envelope)},
	})
	n := need(pem)
	n.Kind, n.Predicate = gatehouse.NeedAttestation, vuln
	evidence, codes := w.verify(n)
	var formats []string
	for _, e := range evidence {
		formats = append(formats, e.Format)
	}
	if diff := cmp.Diff([]string{"cosign-dsse", "sigstore-bundle-v0.3"}, formats); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{verify.CodeWrongKey, verify.CodeOtherPredict}, codes); diff != "" {
		t.Error(diff)
	}
	// And none of it is a signature but the one.
	if evidence, codes := w.verify(need(pem)); len(evidence) != 1 || !cmp.Equal(codes, []string{verify.CodeNotASignature}) {
		t.Errorf("%d, rejected %v", len(evidence), codes)
	}
}

func TestOtherThingsOnTheImage(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.refer("application/spdx+json", w.layer("application/spdx+json", []byte("{}")))
	w.wantNo(need(pub(k)), verify.CodeNoCandidate)
	w.manifest("sha256-"+w.image.Ref.Digest.Hex(), map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("gone")), Size: 4},
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("notary")), Size: 4, ArtifactType: "application/vnd.cncf.notary.signature"},
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("huge")), Size: 1 << 40},
		},
	})
	w.wantNo(need(pub(k)), verify.CodeMissing, verify.CodeOtherFormat, verify.CodeTooLarge)
}

type failing struct {
	verify.Source
	tag, referrers, manifest, blob error
}

func (f failing) ManifestByTag(ctx context.Context, r gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if f.tag != nil {
		return nil, f.tag
	}
	return f.Source.ManifestByTag(ctx, r, tag)
}

func (f failing) Referrers(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest, a string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if f.referrers != nil {
		return nil, f.referrers
	}
	return f.Source.Referrers(ctx, r, d, a, after, n)
}

func (f failing) Manifest(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	if f.manifest != nil {
		return nil, f.manifest
	}
	return f.Source.Manifest(ctx, r, d)
}

func (f failing) OpenBlob(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	if f.blob != nil {
		return nil, f.blob
	}
	return f.Source.OpenBlob(ctx, r, d)
}

func TestFailingSource(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.attach(k, sign.Options{Both: true})
	down := gatehouse.Errorf(gatehouse.CodeUnavailable, "down")
	for name, c := range map[string]struct {
		src  failing
		want int // pieces of evidence; 0 = an error
	}{
		"tag":            {failing{tag: down}, 1},
		"referrers":      {failing{referrers: down}, 1},
		"manifest":       {failing{manifest: down}, 1}, // the tag brings its manifest along
		"blob":           {failing{blob: down}, 0},
		"both":           {failing{tag: down, referrers: down}, 0},
		"tag, manifest":  {failing{tag: down, manifest: down}, 0},
		"a plain error":  {failing{blob: errors.New("disk")}, 0},
		"denied":         {failing{blob: gatehouse.Errorf(gatehouse.CodeDenied, "login")}, 0},
		"only not found": {failing{tag: gatehouse.Errorf(gatehouse.CodeNotFound, "x"), referrers: gatehouse.Errorf(gatehouse.CodeNotFound, "x")}, -1},
	} {
		c.src.Source = w.reg
		evidence, rejected, err := verify.Image(t.Context(), c.src, w.image.Ref, need(pub(k)))
		switch {
		case c.want > 0 && (err != nil || len(evidence) != c.want):
			t.Errorf("%s: %v, %v", name, evidence, err)
		case c.want == 0 && (err == nil || len(evidence) != 0):
			t.Errorf("%s: %v, %v, rejected %v", name, evidence, err, rejected)
		case c.want < 0 && (err != nil || len(evidence) != 0 || rejected[0].Code != verify.CodeNoCandidate):
			t.Errorf("%s: %v, %v, rejected %v", name, evidence, err, rejected)
		}
	}
	// A listing that is too long to be read hides what is in it.
	long := failing{Source: w.reg, referrers: gatehouse.Errorf(gatehouse.CodeTooLarge, "too many referrers")}
	if _, rejected, err := verify.Image(t.Context(), long, w.image.Ref, need(pub(k))); err != nil || len(rejected) != 1 || rejected[0].Code != verify.CodeTooMany {
		t.Errorf("a long listing: %v, %v", rejected, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if evidence, _, err := verify.Image(ctx, w.reg, w.image.Ref, need(pub(k))); err == nil || len(evidence) != 0 {
		t.Errorf("cancelled: %v, %v", evidence, err)
	}
}
