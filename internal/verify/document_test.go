package verify_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// document hangs a document on an image as an artifact of its own.
func (w *world) document(about sign.Image, mediaType string, bodies ...string) sign.Image {
	w.t.Helper()
	empty := w.blob([]byte("{}"))
	empty.MediaType = "application/vnd.oci.empty.v1+json"
	var layers []gatehouse.Descriptor
	for _, b := range bodies {
		layers = append(layers, w.layer(mediaType, []byte(b)))
	}
	return w.manifest("", map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "artifactType": mediaType, "config": empty, "layers": layers,
		"subject": gatehouse.Descriptor{MediaType: about.MediaType, Digest: about.Ref.Digest, Size: about.Size},
	})
}

func (w *world) sign(k *sign.Key, what sign.Image, o sign.Options) {
	w.t.Helper()
	o.Now = time.Unix(1_700_000_000, 0)
	if _, err := sign.Attach(context.Background(), w.reg, k, what, o); err != nil {
		w.t.Fatal(err)
	}
}

func documentNeed(kind gatehouse.NeedKind, keys ...string) gatehouse.Need {
	n := need(keys...)
	n.Kind = kind
	return n
}

// TestSignedDocument: an artifact counts when its manifest names the image and is
// signed by the authority, in either form of signature.
func TestSignedDocument(t *testing.T) {
	for name, o := range map[string]sign.Options{"bundle": {}, "legacy": {Legacy: true}} {
		for kind, mediaType := range map[gatehouse.NeedKind]string{gatehouse.NeedVEX: gatehouse.TypeOpenVEX, gatehouse.NeedSBOM: gatehouse.TypeSPDX} {
			w, k := newWorld(t, true), newKey(t)
			doc := w.document(w.image, mediaType, `{"the":"document"}`)
			w.wantNo(documentNeed(kind, pub(k)), verify.CodeUnsigned)
			w.sign(newKey(t), doc, o)
			w.wantNo(documentNeed(kind, pub(k)), verify.CodeWrongKey)
			w.sign(k, doc, o)
			evidence, codes := w.verify(documentNeed(kind, pub(k)))
			if len(evidence) != 1 || len(codes) != 0 {
				t.Fatalf("%s: %d, rejected %v", name, len(evidence), codes)
			}
			e := evidence[0]
			if string(e.Payload) != `{"the":"document"}` || e.Subject != w.image.Ref.Digest || e.Artifact != doc.Ref.Digest || e.Predicate != mediaType ||
				e.Identity.Key != k.ID() || e.Need != "policy/authority" || e.Format != verify.FormatSigned {
				t.Errorf("%s: %+v", name, e)
			}
			// It is no document of the other sort, and no signature of the image.
			other := map[gatehouse.NeedKind]gatehouse.NeedKind{gatehouse.NeedVEX: gatehouse.NeedSBOM, gatehouse.NeedSBOM: gatehouse.NeedVEX}[kind]
			w.wantNo(documentNeed(other, pub(k)), verify.CodeNoCandidate)
			w.wantNo(need(pub(k)), verify.CodeNoCandidate)
		}
	}
}

// TestDocumentOfAnotherImage: what the authority has signed for one image cannot
// be hung on another, although the index of referrers is anybody's to write.
func TestDocumentOfAnotherImage(t *testing.T) {
	w, k := newWorld(t, false), newKey(t)
	other := w.pushImage("another")
	doc := w.document(other, gatehouse.TypeOpenVEX, "{}")
	w.sign(k, doc, sign.Options{Legacy: true})
	w.manifest("sha256-"+w.image.Ref.Digest.Hex(), map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{
			gatehouse.Descriptor{MediaType: typeManifest, Digest: doc.Ref.Digest, Size: doc.Size, ArtifactType: gatehouse.TypeOpenVEX},
		},
	})
	w.wantNo(documentNeed(gatehouse.NeedVEX, pub(k)), verify.CodeOtherDigest)
}

// TestSignedImageVouchesForNothing: a signature of the image is none of what
// hangs on it.
func TestSignedImageVouchesForNothing(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.sign(k, w.image, sign.Options{Both: true})
	w.document(w.image, gatehouse.TypeVEX, "{}")
	w.wantNo(documentNeed(gatehouse.NeedVEX, pub(k)), verify.CodeUnsigned)
}

// TestAttestedDocument: the predicate of a signed attestation about the image.
func TestAttestedDocument(t *testing.T) {
	w := newWorld(t, true)
	k, pem := ephemeral(t)
	hang := func(d gatehouse.Digest, predicate string) {
		w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(d, predicate))))
	}
	hang(w.image.Ref.Digest, gatehouse.PredicateOpenVEX+"/v0.2.0")
	hang(w.image.Ref.Digest, gatehouse.PredicateCycloneDX)
	hang(w.image.Ref.Digest, signPredicate)
	hang(w.image.Ref.Digest, "https://openvex.dev/nsx")
	hang(gatehouse.DigestOf([]byte("another image")), gatehouse.PredicateOpenVEX)
	for kind, want := range map[gatehouse.NeedKind]string{gatehouse.NeedVEX: gatehouse.PredicateOpenVEX + "/v0.2.0", gatehouse.NeedSBOM: gatehouse.PredicateCycloneDX} {
		evidence, codes := w.verify(documentNeed(kind, pem))
		if len(evidence) != 1 || evidence[0].Predicate != want || !strings.Contains(string(evidence[0].Payload), want) {
			t.Errorf("%s: %+v", want, evidence)
		}
		if kind == gatehouse.NeedVEX && !cmp.Equal(codes, []string{verify.CodeOtherDigest}) {
			t.Errorf("rejected %v", codes)
		}
	}
	_, stranger := ephemeral(t)
	if evidence, codes := w.verify(documentNeed(gatehouse.NeedSBOM, stranger)); len(evidence) != 0 || !cmp.Equal(codes, []string{verify.CodeWrongKey}) {
		t.Errorf("another key: %d, rejected %v", len(evidence), codes)
	}
}

// TestManyDocuments: the work that a flood of documents makes is bounded, and the
// answer says that not all were looked at.
func TestManyDocuments(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	for i := range 52 {
		w.document(w.image, gatehouse.TypeCycloneDX, strings.Repeat("x", i+1))
	}
	evidence, codes := w.verify(documentNeed(gatehouse.NeedSBOM, pub(k)))
	counts := map[string]int{}
	for _, c := range codes {
		counts[c]++
	}
	if diff := cmp.Diff(map[string]int{verify.CodeUnsigned: 50, verify.CodeTooMany: 2}, counts); len(evidence) != 0 || diff != "" {
		t.Errorf("%d, rejected (-want +got):\n%s", len(evidence), diff)
	}
}
