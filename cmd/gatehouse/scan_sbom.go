package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
)

// sbomFormats are the formats of bills of materials.
var sbomFormats = []string{string(sbom.CycloneDX), string(sbom.SPDX)}

// sbomCmd is `gatehouse sbom FILE_OR_IMAGE`.
func (a *app) sbomCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "sbom FILE_OR_IMAGE",
		Short: "find vulnerabilities in what a bill of materials lists",
		Long: `Sbom reads a bill of materials (CycloneDX or SPDX, also inside an attestation)
and lists what is wrong with its packages. Of an image it reads the bill that is
attached to it. A bill is what its author says: gatehouse scan looks itself.`,
		Example: `  gatehouse sbom app.cdx.json
  gatehouse sbom --severity CRITICAL,HIGH --exit-code 1 app.spdx.json
  gatehouse sbom registry.example/app:v1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.scan(cmd, o, func(ctx context.Context, run *scanRun) error { return run.sbom(ctx, args[0]) })
		},
	}
	o.bind(cmd)
	o.bindImage(cmd, "remote")
	cmd.Flags().Lookup("image-src").Hidden = true
	return cmd
}

// sbom reads a bill from a file, or one that is attached to an image.
func (r *scanRun) sbom(ctx context.Context, name string) error {
	r.target = report.Target{Reference: name, Source: "sbom"}
	f, err := os.Open(name)
	if err != nil {
		ref, refErr := gatehouse.ParseRef(name)
		if !os.IsNotExist(err) || refErr != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the bill of materials cannot be read: %w", err).WithHint("name a file, or an image in a registry")
		}
		return r.attachedSBOM(ctx, ref, name)
	}
	defer f.Close()
	return r.readSBOM(ctx, f)
}

func (r *scanRun) readSBOM(ctx context.Context, from io.Reader) error {
	inv, meta, err := sbom.Read(ctx, from, sbom.Limits{})
	if err != nil {
		return err
	}
	if r.app.verbose {
		r.app.say("%s %s, %d packages, made by %v", meta.Format, meta.Version, len(inv.Packages), meta.Tools)
	}
	if meta.Wrapped {
		r.app.say("note: the bill came inside an attestation, whose signature has not been looked at")
	}
	r.inventory = inv
	return nil
}

// sbomTypes are the artifact types of bills, the ones that are read best first.
var sbomTypes = []string{gatehouse.TypeCycloneDX, gatehouse.TypeSPDX, gatehouse.TypeCycloneDXXML, gatehouse.TypeSPDXText}

// attachedSBOM reads the newest bill that hangs on an image, or on the index
// that led to it.
func (r *scanRun) attachedSBOM(ctx context.Context, ref gatehouse.Ref, typed string) error {
	if r.opts.offline {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no file %s, and --offline forbids to ask a registry", ref).WithHint("name a file")
	}
	client := r.app.registryClient(r.opts.insecure, r.opts.server)
	img, err := client.Image(ctx, ref, r.opts.platformOf)
	if err != nil {
		return noFileEither(err, typed)
	}
	defer img.Close()
	r.target = targetOf(ref.String(), img, "sbom")
	registry := client.Registry(ref.Registry)
	for _, subject := range []gatehouse.Digest{img.Ref.Digest, img.Index} {
		if subject == "" {
			continue
		}
		body, err := findSBOM(ctx, registry, ref.Repo, subject)
		if err != nil {
			return err
		}
		if body == nil {
			continue
		}
		defer body.Close()
		r.app.say("note: this is what the image's author, or whoever can push, says is inside; gatehouse scan looks itself")
		return r.readSBOM(ctx, body)
	}
	return gatehouse.Errorf(gatehouse.CodeNotFound, "no bill of materials is attached to %s", ref).WithHint("look inside: gatehouse scan %s", ref)
}

// findSBOM opens the newest bill among the referrers of subject; nil for none.
func findSBOM(ctx context.Context, registry *fetch.Registry, repo gatehouse.Repo, subject gatehouse.Digest) (io.ReadCloser, error) {
	const referrersMax = 1000
	list, err := registry.Referrers(ctx, repo, subject, "", "", referrersMax)
	if err != nil {
		return nil, err
	}
	newestFirst(list)
	for _, kind := range sbomTypes {
		for _, d := range list {
			if d.ArtifactType != kind {
				continue
			}
			m, err := registry.Manifest(ctx, repo, d.Digest)
			if err != nil {
				return nil, err
			}
			var doc struct {
				Layers []gatehouse.Descriptor `json:"layers"`
			}
			if err := json.Unmarshal(m.Body, &doc); err != nil || len(doc.Layers) != 1 {
				continue // not made as bills are
			}
			blob, err := registry.OpenBlob(ctx, repo, doc.Layers[0].Digest)
			if err != nil {
				return nil, err
			}
			return blob.Body, nil
		}
	}
	return nil, nil
}

// newestFirst orders referrers by the annotation org.opencontainers.image.created;
// those that do not say when they were made come last, in their order.
func newestFirst(list []gatehouse.Descriptor) {
	at := func(d gatehouse.Descriptor) time.Time {
		t, err := time.Parse(time.RFC3339, d.Annotations["org.opencontainers.image.created"])
		if err != nil {
			return time.Time{}
		}
		return t
	}
	slices.SortStableFunc(list, func(a, b gatehouse.Descriptor) int { return at(b).Compare(at(a)) })
}

// writeSBOM writes what the target holds as a bill of materials; with
// --scanners also what is wrong with it, where the format can say that.
func (r *scanRun) writeSBOM(w io.Writer) error {
	o := sbom.Options{Name: r.target.Reference, Platform: r.target.Platform, Version: r.app.version(), Created: r.created}
	if ref, err := gatehouse.ParseRef(r.target.Reference); err == nil && r.target.Digest != "" && r.target.Source != "file" {
		o.Repository = ref.Name()
	}
	if r.opts.wantsChosen {
		o.Findings = slices.DeleteFunc(slices.Clone(r.findings), func(f gatehouse.Finding) bool { return !r.opts.filter.Lists(f) })
	}
	return sbom.Write(report.JSONWriter(w), sbom.Format(r.opts.format), r.inventory, o)
}

// createdAt is when an image says that it was made.
func createdAt(config []byte) time.Time {
	var c struct {
		Created time.Time `json:"created"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return time.Time{}
	}
	return c.Created
}
