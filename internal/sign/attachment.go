package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"
	typeBundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeSimple   = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeInToto   = "application/vnd.in-toto+json"

	statementType = "https://in-toto.io/Statement/v1"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"

	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Image is what is signed.
type Image struct {
	// Ref names the image; Digest is set and is what the signature is over.
	Ref gatehouse.Ref
	// MediaType and Size describe the manifest that Ref.Digest is of.
	MediaType string
	Size      int64
}

// Attachment is a signature on its way to a registry: the blobs first, then the
// manifest.
type Attachment struct {
	Blobs     [][]byte
	Manifest  []byte
	MediaType string
	Digest    gatehouse.Digest // of Manifest
	Tag       string           // to move to it; empty for referrers
}

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     struct{}  `json:"predicate"`
}

type subject struct {
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Bundle signs image as `cosign sign` of version 3 does: a DSSE envelope around
// an in-toto statement, in a v0.3 bundle, in a manifest whose subject is the
// image. created goes to the manifest's annotation; nobody vouches for it.
func (k *Key) Bundle(ctx context.Context, image Image, annotations map[string]string, created time.Time) (Attachment, error) {
	d := image.Ref.Digest
	payload, err := json.Marshal(statement{
		Type:          statementType,
		Subject:       []subject{{Digest: map[string]string{d.Algorithm(): d.Hex()}, Annotations: annotations}},
		PredicateType: signPredicate,
	})
	if err != nil {
		return Attachment{}, err
	}
	proto, err := sgsign.Bundle(&sgsign.DSSEData{Data: payload, PayloadType: typeInToto}, keypair{k}, sgsign.BundleOptions{Context: ctx})
	if err != nil {
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeInternal, "signing: %w", err)
	}
	spaced, err := protojson.Marshal(proto)
	if err != nil {
		return Attachment{}, err
	}
	var bundle bytes.Buffer // protojson varies its white space on purpose
	if err := json.Compact(&bundle, spaced); err != nil {
		return Attachment{}, err
	}
	empty := []byte("{}")
	body, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: typeBundle,
		Config: gatehouse.Descriptor{
			MediaType: typeEmpty, Digest: gatehouse.DigestOf(empty), Size: int64(len(empty)), ArtifactType: typeBundle,
		},
		Layers:  []gatehouse.Descriptor{{MediaType: typeBundle, Digest: gatehouse.DigestOf(bundle.Bytes()), Size: int64(bundle.Len())}},
		Subject: &gatehouse.Descriptor{MediaType: image.MediaType, Digest: d, Size: image.Size},
		Annotations: map[string]string{
			"org.opencontainers.image.created":  created.UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": signPredicate,
		},
	})
	if err != nil {
		return Attachment{}, err
	}
	return Attachment{
		Blobs: [][]byte{empty, bundle.Bytes()}, Manifest: body, MediaType: typeManifest, Digest: gatehouse.DigestOf(body),
	}, nil
}

type manifest struct {
	SchemaVersion int                    `json:"schemaVersion"`
	MediaType     string                 `json:"mediaType"`
	ArtifactType  string                 `json:"artifactType,omitempty"`
	Config        gatehouse.Descriptor   `json:"config"`
	Layers        []gatehouse.Descriptor `json:"layers"`
	Subject       *gatehouse.Descriptor  `json:"subject,omitempty"`
	Annotations   map[string]string      `json:"annotations,omitempty"`
}

func (k *Key) sign(ctx context.Context, message []byte) ([]byte, error) {
	return k.signer.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
}
