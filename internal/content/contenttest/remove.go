package contenttest

import (
	"github.com/gatehouse-dev/gatehouse"
)

var removeTests = []test{
	{"a deleted tag leaves the manifest", func(s *Suite) {
		d := s.Push("a/b", app, "v1", "v2")
		s.must(s.C.DeleteTag(s.Context(), Pusher, "a/b", "v1"))
		s.WantError(s.C.DeleteTag(s.Context(), Pusher, "a/b", "v1"), gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		s.WantError(s.C.DeleteTag(s.Context(), Pusher, "a/c", "v1"), gatehouse.CodeNotFound, "NAME_UNKNOWN")
		s.WantTags("a/b", "v2")
		s.WantManifest("a/b", "v2", d, app.Body())
	}},
	{"a deleted manifest takes its tags along", func(s *Suite) {
		d := s.Push("a/b", app, "v1", "v2")
		other := app
		other.Annotations = map[string]string{"other": "one"}
		s.Push("a/b", other, "other")
		s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", d.Digest))
		s.WantError(s.C.DeleteManifest(s.Context(), Pusher, "a/b", d.Digest), gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		s.WantError(s.C.DeleteManifest(s.Context(), Pusher, "a/c", d.Digest), gatehouse.CodeNotFound, "NAME_UNKNOWN")
		_, err := s.C.Manifest(s.Context(), "a/b", d.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		_, err = s.C.ManifestByTag(s.Context(), "a/b", "v1")
		s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		s.WantTags("a/b", "other")
		// It can come back.
		m, err := s.Put("a/b", OCIManifest, app.Body(), "v1")
		s.must(err)
		s.WantManifest("a/b", "v1", m.Descriptor, app.Body())
	}},
	{"an image of a living index cannot be deleted", func(s *Suite) {
		child := s.Push("a/b", app)
		index, err := s.Put("a/b", OCIIndex, IndexBody(OCIIndex, child), "multi")
		s.must(err)
		s.WantError(s.C.DeleteManifest(s.Context(), Pusher, "a/b", child.Digest), gatehouse.CodeConflict, "DENIED")
		s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", index.Digest))
		s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", child.Digest))
	}},
	{"a blob that a manifest needs cannot be deleted", func(s *Suite) {
		d := s.Push("a/b", app)
		layer := Describe(OCILayer, app.Layers[0])
		_, err := s.C.MountBlob(s.Context(), Pusher, "a/c", "a/b", layer.Digest)
		s.must(err)
		s.WantError(s.C.DeleteBlob(s.Context(), Pusher, "a/b", layer.Digest), gatehouse.CodeConflict, "DENIED")
		s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", d.Digest))
		s.must(s.C.DeleteBlob(s.Context(), Pusher, "a/b", layer.Digest))
		s.WantError(s.C.DeleteBlob(s.Context(), Pusher, "a/b", layer.Digest), gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		_, err = s.C.OpenBlob(s.Context(), "a/b", layer.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		s.WantBlob("a/c", layer, app.Layers[0])
		_, err = s.Put("a/b", OCIManifest, app.Body())
		s.WantError(err, gatehouse.CodeInvalid, "MANIFEST_BLOB_UNKNOWN")
	}},
}
