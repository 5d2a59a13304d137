package update

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/gatehouse-dev/gatehouse"
)

// Found is what a layout was found to hold.
type Found struct {
	Kind    string   // [TypeArtifact] or [TypeTrivy]
	File    *os.File // the advisory file, or the layer of Trivy's database
	Size    int64    // its bytes
	About   About    // of an advisory database
	Version string   // that a feed of it would have
}

// Discard closes and removes the file.
func (f *Found) Discard() {
	discard(f.File)
	_ = os.Remove(f.File.Name()) // in a directory for passing files, if it is still there
}

// Layout is an OCI image layout: [fetch.Layout].
type Layout interface {
	Registry
	Manifests() []gatehouse.Descriptor
}

// Open finds the one manifest of a layout that is an advisory database, and
// reads it as [OpenRef] does.
func Open(ctx context.Context, l Layout, dir string) (*Found, error) {
	list := l.Manifests()
	if len(list) != 1 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the layout holds %d manifests, and an advisory database is one", len(list))
	}
	return OpenRef(ctx, l, gatehouse.Ref{Digest: list[0].Digest}, dir)
}

// OpenRef reads the artifact that ref names into a file in dir, whose digests it
// compares: an advisory database of `gatehouse db export`, or Trivy's.
// Errors: CodeNotFound, CodeInvalid (something else, or damaged), CodeTooLarge.
func OpenRef(ctx context.Context, reg Registry, ref gatehouse.Ref, dir string) (*Found, error) {
	m, err := manifestOf(ctx, reg, ref)
	if err != nil {
		return nil, err
	}
	ref.Digest = m.Digest // the tag may move meanwhile
	found := &Found{Kind: TypeArtifact, Version: "digest:" + string(m.Digest)}
	if isTrivy(m) {
		found.Kind = TypeTrivy
		if found.File, err = os.CreateTemp(dir, "feed-*.tmp"); err != nil {
			return nil, diskFailed(err)
		}
		_, err = fetchLayer(ctx, reg, ref, "", TypeTrivy, trivySizeMax, found.File)
	} else {
		var path string
		if path, found.About, err = Unpack(ctx, reg, ref, dir); err != nil {
			return nil, err
		}
		found.File, err = os.Open(path)
	}
	if err == nil {
		found.Size, err = length(found.File)
	}
	if err != nil && found.File != nil {
		found.Discard()
	}
	var again *transient
	if errors.As(err, &again) {
		err = again.err
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// isTrivy reports whether a manifest is Trivy's database.
func isTrivy(m *gatehouse.Manifest) bool {
	var doc manifestDoc
	return json.Unmarshal(m.Body, &doc) == nil && len(doc.Layers) == 1 && doc.Layers[0].MediaType == TypeTrivy
}

// IsTar reports whether a file is a tar, which of all that is imported an OCI
// image layout only is.
func IsTar(f io.ReaderAt) bool {
	const magicAt = 257 // of POSIX and GNU tars
	b := make([]byte, 5)
	n, _ := f.ReadAt(b, magicAt)
	return string(b[:n]) == "ustar"
}
