package update

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
)

// Media types of an advisory database as an OCI artifact. docs/advisories.md
// describes it; a change that readers must know of changes the version.
const (
	TypeArtifact = "application/vnd.gatehouse.advisories.v1"
	TypeConfig   = "application/vnd.gatehouse.advisories.config.v1+json"
	TypeDatabase = "application/vnd.gatehouse.advisories.database.v1.sqlite+zstd"
	// TypeTrivy is the layer of Trivy's database.
	TypeTrivy = trivyLayer

	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
)

// DatabaseSizeMax bounds the advisory file in an artifact, in bytes.
const DatabaseSizeMax = 16 << 30

// configSizeMax bounds the artifact's configuration.
const configSizeMax = 4 << 20

// About is the configuration of the artifact: what is in it, so that nobody must
// unpack it to know.
type About struct {
	Digest    gatehouse.Digest `json:"digest"` // sha256 of the file, not packed
	Size      int64            `json:"size"`   // its bytes
	BuiltAt   time.Time        `json:"builtAt"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"` // of the newest advisory
	Records   int              `json:"records"`
	Feeds     []AboutFeed      `json:"feeds"`
}

// AboutFeed is one feed in it.
type AboutFeed struct {
	Name      string    `json:"name"`
	Source    string    `json:"source,omitempty"`
	Records   int       `json:"records"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}

// Artifact is an advisory database, packed.
type Artifact struct {
	Manifest, Config []byte
	About            About
	layer            gatehouse.Descriptor
	path             string // of the packed file
}

// Digest is that of the manifest.
func (a *Artifact) Digest() gatehouse.Digest { return gatehouse.DigestOf(a.Manifest) }

// Discard removes the packed file.
func (a *Artifact) Discard() { _ = os.Remove(a.path) } // in a directory for passing files

// Pack compresses the advisory file at path into dir. about says what is in it
// but for digest and size, which Pack finds out. The same file makes the same
// artifact. The caller discards it.
func Pack(ctx context.Context, path, dir string, about About) (*Artifact, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the advisory database: %w", err)
	}
	defer discard(from)
	out, err := os.CreateTemp(dir, "export-*.tmp")
	if err != nil {
		return nil, diskFailed(err)
	}
	a := &Artifact{About: about, path: out.Name()}
	if err := a.pack(ctx, from, out); err != nil {
		discard(out)
		a.Discard()
		return nil, err
	}
	if err := out.Close(); err != nil {
		a.Discard()
		return nil, diskFailed(err)
	}
	return a, nil
}

func (a *Artifact) pack(ctx context.Context, from io.Reader, out *os.File) error {
	plain, packed := gatehouse.NewHash(gatehouse.SHA256), gatehouse.NewHash(gatehouse.SHA256)
	// One worker: several make frames that depend on their timing.
	z, err := zstd.NewWriter(io.MultiWriter(out, packed), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if a.About.Size, err = io.Copy(io.MultiWriter(z, plain), reader{ctx, from}); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't pack the advisory database: %w", err)
	}
	if err := z.Close(); err != nil {
		return diskFailed(err)
	}
	a.About.Digest = gatehouse.NewDigest(gatehouse.SHA256, plain.Sum(nil))
	size, err := length(out)
	if err != nil {
		return err
	}
	a.layer = gatehouse.Descriptor{
		MediaType: TypeDatabase, Digest: gatehouse.NewDigest(gatehouse.SHA256, packed.Sum(nil)), Size: size,
		Annotations: map[string]string{"org.opencontainers.image.title": "advisories.db.zst"},
	}
	if a.Config, err = json.Marshal(a.About); err != nil {
		return err
	}
	a.Manifest, err = json.Marshal(struct {
		SchemaVersion int                    `json:"schemaVersion"`
		MediaType     string                 `json:"mediaType"`
		ArtifactType  string                 `json:"artifactType"`
		Config        gatehouse.Descriptor   `json:"config"`
		Layers        []gatehouse.Descriptor `json:"layers"`
		Annotations   map[string]string      `json:"annotations"`
	}{
		2, typeManifest, TypeArtifact, describe(TypeConfig, a.Config), []gatehouse.Descriptor{a.layer},
		map[string]string{"org.opencontainers.image.created": a.About.BuiltAt.UTC().Format(time.RFC3339)},
	})
	return err
}

func describe(mediaType string, body []byte) gatehouse.Descriptor {
	return gatehouse.Descriptor{MediaType: mediaType, Digest: gatehouse.DigestOf(body), Size: int64(len(body))}
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// WriteLayout writes the artifact as the tar of an OCI image layout.
func (a *Artifact) WriteLayout(w io.Writer) error {
	index, err := json.Marshal(struct {
		SchemaVersion int                    `json:"schemaVersion"`
		MediaType     string                 `json:"mediaType"`
		Manifests     []gatehouse.Descriptor `json:"manifests"`
	}{2, typeIndex, []gatehouse.Descriptor{{
		MediaType: typeManifest, Digest: a.Digest(), Size: int64(len(a.Manifest)), ArtifactType: TypeArtifact,
		Annotations: map[string]string{"org.opencontainers.image.ref.name": "latest"},
	}}})
	if err != nil {
		return err
	}
	layer, err := os.Open(a.path)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the packed advisory database: %w", err)
	}
	defer discard(layer)
	t := tar.NewWriter(w)
	blob := func(d gatehouse.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Hex() }
	for _, part := range []struct {
		name string
		size int64
		body io.Reader
	}{
		{"oci-layout", 0, bytes.NewReader([]byte(`{"imageLayoutVersion":"1.0.0"}`))},
		{"index.json", 0, bytes.NewReader(index)},
		{blob(a.Digest()), 0, bytes.NewReader(a.Manifest)},
		{blob(gatehouse.DigestOf(a.Config)), 0, bytes.NewReader(a.Config)},
		{blob(a.layer.Digest), a.layer.Size, layer},
	} {
		if b, ok := part.body.(*bytes.Reader); ok {
			part.size = b.Size()
		}
		h := &tar.Header{Name: part.name, Mode: 0o644, Size: part.size, Typeflag: tar.TypeReg, ModTime: a.About.BuiltAt.UTC().Truncate(time.Second)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(t, part.body); err != nil {
			return err
		}
	}
	return t.Close()
}

// Pusher takes an artifact: [fetch.Registry].
type Pusher interface {
	PutFile(ctx context.Context, repo gatehouse.Repo, d gatehouse.Descriptor, open func() (io.ReadCloser, error)) error
	PutManifest(ctx context.Context, repo gatehouse.Repo, tag, mediaType string, body []byte) error
}

// Copy stores the one artifact of a layout under ref, blobs first, and returns
// the digest of its manifest. What a blob's bytes are is checked on the way.
func Copy(ctx context.Context, from Layout, to Pusher, ref gatehouse.Ref) (gatehouse.Digest, error) {
	list := from.Manifests()
	if len(list) != 1 {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the layout holds %d manifests, and an advisory database is one", len(list))
	}
	m, err := from.Manifest(ctx, "", list[0].Digest)
	if err != nil {
		return "", err
	}
	doc, err := artifactOf(m)
	if err != nil {
		return "", err
	}
	for _, d := range []gatehouse.Descriptor{doc.Config, doc.Layers[0]} {
		err := to.PutFile(ctx, ref.Repo, d, func() (io.ReadCloser, error) {
			b, err := from.OpenBlob(ctx, "", d.Digest)
			if err != nil {
				return nil, err
			}
			return b.Body, nil
		})
		if err != nil {
			return "", err
		}
	}
	return m.Digest, to.PutManifest(ctx, ref.Repo, ref.Tag, typeManifest, m.Body)
}

// Verify reads the one artifact of a layout whole and compares every digest.
func Verify(ctx context.Context, l Layout, dir string) (About, error) {
	found, err := Open(ctx, l, dir)
	if err != nil {
		return About{}, err
	}
	found.Discard()
	if found.Kind != TypeArtifact {
		return About{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the layout holds another kind of advisory database")
	}
	return found.About, nil
}

// clockSkewMax is how far ahead another machine's clock may be.
const clockSkewMax = 24 * time.Hour

// NotOlder refuses to replace advisories, of which the newest is of the time
// have, by older ones: that would take flaws away that are known. Those of a time
// to come are refused as well, since all that follow would be older.
// Errors: CodeInvalid.
func NotOlder(have, next time.Time) error {
	if now := time.Now(); next.After(now.Add(clockSkewMax)) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "their newest advisory is of %s, which is yet to come", next.UTC().Format(time.RFC3339)).
			WithHint("compare the clocks of both machines; to take it nevertheless, say --force")
	}
	if !next.Before(have) {
		return nil
	}
	when := "unknown"
	if !next.IsZero() {
		when = next.UTC().Format(time.RFC3339)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "they are older than those that are there: their newest is of %s, and %s is known", when, have.UTC().Format(time.RFC3339)).
		WithHint("export them anew; to go back nevertheless, say --force")
}

// Unpack reads the artifact that ref names and writes the advisory file into
// dir, compared with every digest on the way. The caller removes the file; that
// it is an advisory file is its reader's to find out.
// Errors: CodeNotFound, CodeInvalid (something else, or damaged), CodeTooLarge.
func Unpack(ctx context.Context, reg Registry, ref gatehouse.Ref, dir string) (path string, about About, err error) {
	return unpackUnless(ctx, reg, ref, dir, func(About) (bool, error) { return false, nil })
}

// unpackUnless is [Unpack], but fetches no more than the configuration where that
// is of a database that is known: errUnchanged.
func unpackUnless(ctx context.Context, reg Registry, ref gatehouse.Ref, dir string, known func(About) (bool, error)) (path string, about About, err error) {
	m, err := manifestOf(ctx, reg, ref)
	if err != nil {
		return "", about, err
	}
	doc, err := artifactOf(m)
	if err != nil {
		return "", about, err
	}
	if about, err = readAbout(ctx, reg, ref.Repo, doc.Config); err != nil {
		return "", about, err
	}
	if have, err := known(about); err != nil || have {
		return "", about, cmp.Or(err, errUnchanged)
	}
	blob, err := reg.OpenBlob(ctx, ref.Repo, doc.Layers[0].Digest)
	if err != nil {
		return "", about, err
	}
	defer discard(blob.Body)
	out, err := os.CreateTemp(dir, "unpack-*.tmp")
	if err != nil {
		return "", about, diskFailed(err)
	}
	err = unpack(ctx, blob.Body, doc.Layers[0], about, out)
	if closed := out.Close(); err == nil && closed != nil {
		err = diskFailed(closed)
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return "", about, err
	}
	return out.Name(), about, nil
}

// artifactOf reads the manifest of an advisory database.
func artifactOf(m *gatehouse.Manifest) (doc manifestDoc, err error) {
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return doc, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is not JSON: %w", m.Digest, err)
	}
	if doc.ArtifactType != TypeArtifact || doc.Config.MediaType != TypeConfig || len(doc.Layers) != 1 || doc.Layers[0].MediaType != TypeDatabase {
		return doc, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is no advisory database that this version reads", m.Digest).
			WithHint("make one with `gatehouse db export`; a newer Gatehouse may make one that only a newer one reads")
	}
	return doc, nil
}

func readAbout(ctx context.Context, reg Registry, repo gatehouse.Repo, d gatehouse.Descriptor) (about About, err error) {
	if d.Size < 0 || d.Size > configSizeMax {
		return about, gatehouse.Errorf(gatehouse.CodeTooLarge, "the artifact's configuration has %d bytes, %d at most", d.Size, int64(configSizeMax))
	}
	blob, err := reg.OpenBlob(ctx, repo, d.Digest)
	if err != nil {
		return about, err
	}
	defer discard(blob.Body)
	body, err := io.ReadAll(io.LimitReader(blob.Body, d.Size+1))
	if err != nil {
		return about, err
	}
	if int64(len(body)) != d.Size || !d.Digest.Matches(body) {
		return about, gatehouse.Errorf(gatehouse.CodeInvalid, "the artifact's configuration is damaged")
	}
	if err := json.Unmarshal(body, &about); err != nil {
		return about, gatehouse.Errorf(gatehouse.CodeInvalid, "the artifact's configuration is not valid: %w", err)
	}
	if _, err := gatehouse.ParseDigest(string(about.Digest)); err != nil || about.Size <= 0 {
		return about, gatehouse.Errorf(gatehouse.CodeInvalid, "the artifact's configuration names no database")
	}
	if about.Size > DatabaseSizeMax {
		return about, gatehouse.Errorf(gatehouse.CodeTooLarge, "the database has %d bytes, %d at most", about.Size, int64(DatabaseSizeMax))
	}
	return about, nil
}

// unpack writes the database and compares both what came and what it unpacks to.
func unpack(ctx context.Context, from io.Reader, layer gatehouse.Descriptor, about About, out *os.File) error {
	packed, plain := layer.Digest.Hash(), about.Digest.Hash()
	if packed == nil || plain == nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the artifact has digests of an unknown kind")
	}
	source := &broken{r: from}
	came := io.TeeReader(io.LimitReader(reader{ctx, source}, layer.Size+1), packed)
	z, err := zstd.NewReader(came, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	n, err := io.Copy(io.MultiWriter(diskWriter{out}, plain), io.LimitReader(z, about.Size+1))
	var disk *diskError
	var own *gatehouse.Error
	switch {
	case errors.As(err, &disk):
		return diskFailed(disk.err)
	case errors.As(err, &own), ctx.Err() != nil:
		return err
	case source.err != nil:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database broke off after %d bytes: %w", n, bare(source.err))
	case err != nil:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the database in the artifact is damaged: %w", err)
	case n != about.Size || gatehouse.NewDigest(about.Digest.Algorithm(), plain.Sum(nil)) != about.Digest:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the database in the artifact is not %s, which its configuration names", about.Digest)
	}
	if _, err := io.Copy(io.Discard, came); err != nil {
		return err
	}
	if gatehouse.NewDigest(layer.Digest.Algorithm(), packed.Sum(nil)) != layer.Digest {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the artifact's layer has other bytes than %s", layer.Digest)
	}
	return nil
}

// broken notes the error that a source ends with before its end.
type broken struct {
	r   io.Reader
	err error
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}
