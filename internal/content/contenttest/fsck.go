package contenttest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// House is an empty registry with its parts in reach, so that tests can damage
// them.
type House struct {
	Content *content.Content
	DB      *db.DB
	Store   blob.Store
	// Exec changes rows behind the registry's back.
	Exec func(query string, args ...any)
}

// RunFsck runs the tests of damage: each kind is done for real, found, repaired
// where it can be, never served, and healed by a push.
func RunFsck(t *testing.T, open func(t *testing.T) House) {
	for _, test := range fsckTests {
		t.Run(test.name, func(t *testing.T) {
			h := open(t)
			test.run(&damaged{Suite: &Suite{T: t, C: h.Content}, House: h})
		})
	}
}

type damaged struct {
	*Suite
	House
}

// Found is what a test expects of one problem.
type found struct {
	Kind     content.ProblemKind
	Images   string // joined by spaces
	Repaired bool
}

// fsck checks that exactly these problems are found.
func (s *damaged) fsck(opts content.FsckOptions, want ...found) []content.Problem {
	s.Helper()
	if opts.MinAge == 0 {
		opts.MinAge = -1
	}
	var got []content.Problem
	var seen []found
	sum, err := s.Content.Fsck(s.Context(), opts, func(p content.Problem) error {
		got = append(got, p)
		seen = append(seen, found{p.Kind, strings.Join(p.Images, " "), p.Repaired})
		if p.Message == "" || p.Repair == "" {
			s.Errorf("a problem without words: %+v", p)
		}
		return nil
	})
	s.must(err)
	if diff := cmp.Diff(want, seen); diff != "" {
		s.Fatalf("problems (-want +got):\n%s%+v", diff, got)
	}
	if sum.Problems != int64(len(got)) {
		s.Errorf("summary %+v of %d problems", sum, len(got))
	}
	return got
}

var (
	look   = content.FsckOptions{}
	deep   = content.FsckOptions{Deep: true}
	repair = content.FsckOptions{Deep: true, Repair: true}
)

// events counts the events of a type.
func (s *damaged) events(kind gatehouse.EventType) (n int) {
	s.Helper()
	s.must(s.DB.Read(s.Context(), func(tx *db.Tx) error {
		all, err := tx.Events(s.Context(), 0, 10_000)
		for _, e := range all {
			if e.Type == kind {
				n++
			}
		}
		return err
	}))
	return n
}

func (s *damaged) objects() []blob.Object {
	s.Helper()
	all, err := s.Store.List(s.Context(), "", 10_000)
	s.must(err)
	return all
}

// layer is too large to lie in its row.
func layer(n int) string { return strings.Repeat(fmt.Sprintf("layer %d. ", n), 20_000) }

// image pushes an image with one stored layer and returns the layer with its key.
func (s *damaged) image(repo gatehouse.Repo, n int, tags ...string) (Image, gatehouse.Descriptor, string) {
	s.Helper()
	before := s.objects()
	i := Image{Config: fmt.Sprintf(`{"n":%d}`, n), Layers: []string{layer(n)}}
	s.Push(repo, i, tags...)
	for _, o := range s.objects() {
		if !slices.ContainsFunc(before, func(b blob.Object) bool { return b.Key == o.Key }) {
			return i, Describe(OCILayer, i.Layers[0]), o.Key
		}
	}
	s.Fatal("the layer was not stored")
	return i, gatehouse.Descriptor{}, ""
}

// overwrite puts other bytes under a key.
func (s *damaged) overwrite(key, text string) {
	s.Helper()
	s.must(s.Store.Delete(s.Context(), key))
	_, err := blob.Put(s.Context(), s.Store, key, strings.NewReader(text))
	s.must(err)
}

func flip(text string) string { return text[:len(text)/2] + "\x00" + text[len(text)/2+1:] }

// wantWithheld checks what clients see of a damaged blob.
func (s *damaged) wantWithheld(repo gatehouse.Repo, d gatehouse.Descriptor) {
	s.Helper()
	s.Content.Settle()
	_, err := s.C.OpenBlob(s.Context(), repo, d.Digest)
	s.WantError(err, gatehouse.CodeDamaged, "")
	s.Content.Settle()
	_, err = s.C.StatBlob(s.Context(), repo, d.Digest)
	s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
	_, err = s.C.MountBlob(s.Context(), Pusher, "elsewhere", repo, d.Digest)
	s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
}

// wantHealed pushes the bytes again and finds everything whole.
func (s *damaged) wantHealed(repo gatehouse.Repo, d gatehouse.Descriptor, text string) {
	s.Helper()
	s.PushBlob(repo, text)
	s.WantBlob(repo, d, text)
	s.must(s.Content.Sweep(s.Context()))
	s.fsck(deep)
}

var fsckTests = []struct {
	name string
	run  func(*damaged)
}{
	{"a flipped bit", func(s *damaged) {
		i, d, key := s.image("a/b", 1, "v1")
		s.image("a/b", 2, "other")
		s.overwrite(key, flip(i.Layers[0]))
		s.fsck(look)
		s.fsck(deep, found{content.BlobCorrupt, "a/b:v1", false})
		s.fsck(repair, found{content.BlobCorrupt, "a/b:v1", false})
		s.wantWithheld("a/b", d)
		s.fsck(look, found{content.BlobWithheld, "a/b:v1", false})
		s.fsck(repair, found{content.BlobWithheld, "a/b:v1", false})
		if n := s.events(gatehouse.EventBlobCorrupt); n != 1 {
			s.Errorf("%d events tell of one damaged blob", n)
		}
		s.wantHealed("a/b", d, i.Layers[0])
		if n := len(s.objects()); n != 2 {
			s.Errorf("%d objects, want 2: the damaged bytes must go", n)
		}
	}},
	{"a file cut short", func(s *damaged) {
		i, d, key := s.image("a/b", 1, "v1")
		s.overwrite(key, i.Layers[0][:1000])
		s.fsck(look, found{content.BlobSize, "a/b:v1", false})
		s.wantWithheld("a/b", d) // the first reader has noticed, too
		s.fsck(look, found{content.BlobWithheld, "a/b:v1", false})
		s.wantHealed("a/b", d, i.Layers[0])
	}},
	{"a file deleted, and put back", func(s *damaged) {
		i, d, key := s.image("a/b", 1, "v1", "v2")
		s.must(s.Store.Delete(s.Context(), key))
		s.fsck(look, found{content.BlobMissing, "a/b:v1 a/b:v2", false})
		_, err := s.C.OpenBlob(s.Context(), "a/b", d.Digest)
		s.WantError(err, gatehouse.CodeDamaged, "")
		s.fsck(repair, found{content.BlobMissing, "a/b:v1 a/b:v2", false})
		s.wantWithheld("a/b", d)
		s.overwrite(key, i.Layers[0])
		s.fsck(look, found{content.BlobWithheld, "a/b:v1 a/b:v2", false})
		s.fsck(repair, found{content.BlobWithheld, "a/b:v1 a/b:v2", true})
		s.WantBlob("a/b", d, i.Layers[0])
		s.fsck(deep)
		if n := s.events(gatehouse.EventBlobHealed); n != 1 {
			s.Errorf("%d events tell of one healed blob", n)
		}
	}},
	{"a file deleted, and pushed again", func(s *damaged) {
		i, d, key := s.image("a/b", 1, "v1")
		s.Push("c", i, "same") // the row is shared, so that a push heals both
		s.must(s.Store.Delete(s.Context(), key))
		s.fsck(repair, found{content.BlobMissing, "a/b:v1 c:same", false})
		_, err := s.Put("c", OCIManifest, i.Body())
		s.WantError(err, gatehouse.CodeInvalid, "MANIFEST_BLOB_UNKNOWN")
		s.wantHealed("a/b", d, i.Layers[0])
		s.WantBlob("c", d, i.Layers[0])
	}},
	{"a stray object", func(s *damaged) {
		s.image("a/b", 1, "v1")
		key := blob.NewKey(time.Now())
		_, err := blob.Put(s.Context(), s.Store, key, strings.NewReader("nobody's"))
		s.must(err)
		s.fsck(content.FsckOptions{MinAge: time.Hour, Repair: true})
		s.fsck(look, found{content.ObjectOrphan, "", false})
		s.fsck(repair, found{content.ObjectOrphan, "", true})
		s.fsck(deep)
		if n := len(s.objects()); n != 1 {
			s.Errorf("%d objects, want 1", n)
		}
	}},
	{"an inline blob with other bytes", func(s *damaged) {
		i, _, _ := s.image("a/b", 1, "v1")
		s.Exec(`UPDATE blob SET inline = $1 WHERE storage_key = ''`, []byte("{}"))
		s.fsck(look, found{content.BlobCorrupt, "a/b:v1", false})
		d := Describe(OCIConfig, i.Config)
		s.wantWithheld("a/b", d)
		s.wantWithheld("a/b", d)
		if n := s.events(gatehouse.EventBlobCorrupt); n != 1 {
			s.Errorf("%d events tell of one damaged blob", n)
		}
		s.fsck(repair, found{content.BlobWithheld, "a/b:v1", false})
		s.wantHealed("a/b", d, i.Config)
	}},
	{"a manifest with other bytes, and a copy elsewhere", func(s *damaged) {
		i, _, _ := s.image("a/b", 1, "v1")
		s.Push("c", i, "copy")
		s.Exec(`UPDATE manifest SET body = $1 WHERE id = (SELECT MIN(id) FROM manifest)`, []byte("{}"))
		s.fsck(look, found{content.ManifestCorrupt, "a/b:v1", false})
		s.fsck(repair, found{content.ManifestCorrupt, "a/b:v1", true})
		s.WantManifest("a/b", "v1", Describe(OCIManifest, string(i.Body())), i.Body())
		s.fsck(deep)
	}},
	{"a manifest with other bytes, and no copy", func(s *damaged) {
		i, _, _ := s.image("a/b", 1, "v1")
		s.Exec(`UPDATE manifest SET body = $1`, []byte("{}"))
		for range 2 {
			_, err := s.C.ManifestByTag(s.Context(), "a/b", "v1")
			s.WantError(err, gatehouse.CodeDamaged, "")
		}
		s.fsck(repair, found{content.ManifestCorrupt, "a/b:v1", false})
		if n := s.events(gatehouse.EventManifestCorrupt); n != 1 {
			s.Errorf("%d events tell of one damaged manifest", n)
		}
		m, err := s.Put("a/b", OCIManifest, i.Body())
		s.must(err)
		if string(m.Body) != string(i.Body()) {
			s.Errorf("the push answers %s", m.Body)
		}
		s.WantManifest("a/b", "v1", m.Descriptor, i.Body())
		s.fsck(deep)
	}},
	{"a manifest that lost its parts", func(s *damaged) {
		i, _, _ := s.image("a/b", 1, "v1")
		s.Exec(`DELETE FROM manifest_blob`)
		s.fsck(look, found{content.ManifestIncomplete, "a/b:v1", false})
		s.fsck(repair, found{content.ManifestIncomplete, "a/b:v1", true})
		s.fsck(deep)
		s.Exec(`DELETE FROM manifest_blob`)
		_, err := s.Put("a/b", OCIManifest, i.Body())
		s.must(err)
		s.fsck(deep)
	}},
	{"an upload with fewer bytes than its client was told", func(s *damaged) {
		u := s.Start("a/b", "")
		_, err := u.Append(s.Context(), 0, strings.NewReader(layer(1)))
		s.must(err)
		s.fsck(deep)
		s.must(s.Store.Delete(s.Context(), s.objects()[0].Key))
		s.fsck(look, found{content.UploadShort, "", false})
		s.fsck(repair, found{content.UploadShort, "", true})
		_, err = s.C.ResumeUpload(s.Context(), Pusher, "a/b", u.ID())
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		s.fsck(deep)
	}},
	{"links lost, and links that would expire", func(s *damaged) {
		i, d, _ := s.image("a/b", 1, "v1")
		s.Exec(`DELETE FROM repo_blob`)
		_, err := s.C.OpenBlob(s.Context(), "a/b", d.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		s.fsck(look, found{Kind: content.RowContradiction}, found{Kind: content.RowContradiction})
		fixed := found{Kind: content.RowContradiction, Repaired: true}
		s.fsck(repair, fixed, fixed)
		s.WantBlob("a/b", d, i.Layers[0])
		s.Exec(`UPDATE repo_blob SET expires_at = 1`)
		s.fsck(repair, fixed, fixed)
		s.fsck(deep)
	}},
	{"the wrong storage", func(s *damaged) {
		for n := range 13 {
			_, _, key := s.image("a/b", n, fmt.Sprint("v", n))
			s.must(s.Store.Delete(s.Context(), key))
		}
		count := func(opts content.FsckOptions) (withheld int) {
			before := s.events(gatehouse.EventBlobCorrupt)
			_, err := s.Content.Fsck(s.Context(), opts, func(content.Problem) error { return nil })
			s.must(err)
			return s.events(gatehouse.EventBlobCorrupt) - before
		}
		if n := count(repair); n != 10 {
			s.Errorf("%d blobs were withheld before it looked like the wrong storage, want 10", n)
		}
		all := repair
		all.AcceptLoss = true
		if n := count(all); n != 3 {
			s.Errorf("%d blobs were withheld when told to, want the other 3", n)
		}
	}},
	{"the wrong database", func(s *damaged) {
		for range 12 {
			_, err := blob.Put(s.Context(), s.Store, blob.NewKey(time.Now()), strings.NewReader("of another registry"))
			s.must(err)
		}
		s.fsck(repair, slices.Repeat([]found{{Kind: content.ObjectOrphan}}, 12)...)
		if n := len(s.objects()); n != 12 {
			s.Errorf("%d objects are left of 12", n)
		}
		all := repair
		all.AcceptLoss = true
		s.fsck(all, slices.Repeat([]found{{Kind: content.ObjectOrphan, Repaired: true}}, 12)...)
		s.fsck(deep)
	}},
	{"a damaged blob is never served whole", func(s *damaged) {
		i, d, key := s.image("a/b", 1, "v1")
		bad := flip(i.Layers[0])
		s.overwrite(key, bad)
		b, err := s.C.OpenBlob(s.Context(), "a/b", d.Digest)
		s.must(err)
		defer b.Body.Close()
		if _, local := b.Body.(interface{ Fd() uintptr }); local {
			return // served from a local file by sendfile, unread by us: the scrub looks after it
		}
		got, err := io.ReadAll(b.Body)
		s.WantError(err, gatehouse.CodeDamaged, "")
		if len(got) >= len(bad) || !strings.HasPrefix(bad, string(got)) {
			s.Errorf("%d of %d bytes were handed out", len(got), len(bad))
		}
		s.wantWithheld("a/b", d)
		s.wantHealed("a/b", d, i.Layers[0])
		// Whole, twice, and in part.
		b, err = s.C.OpenBlob(s.Context(), "a/b", d.Digest)
		s.must(err)
		defer b.Body.Close()
		for range 2 {
			_, err = b.Body.Seek(0, io.SeekStart)
			s.must(err)
			got, err = io.ReadAll(b.Body)
			s.must(err)
			if string(got) != i.Layers[0] {
				s.Errorf("read %d bytes", len(got))
			}
		}
		_, err = b.Body.Seek(-10, io.SeekEnd)
		s.must(err)
		got, err = io.ReadAll(b.Body)
		s.must(err)
		if !strings.HasSuffix(i.Layers[0], string(got)) || len(got) != 10 {
			s.Errorf("the last ten bytes are %q", got)
		}
	}},
	{"a check that is cancelled says so", func(s *damaged) {
		s.image("a/b", 1, "v1")
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		if _, err := s.Content.Fsck(ctx, deep, func(content.Problem) error { return nil }); err == nil {
			s.Error("a check that saw nothing found nothing wrong")
		}
	}},
}
