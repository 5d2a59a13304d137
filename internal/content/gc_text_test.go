package content_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestGCRules runs the stories of testdata/gc: each is one rule. A line of a
// story is a verb with words, optionally "in REPO" at its end:
//
//	blob NAME                         a blob without a manifest
//	push NAME [layer=L] [subject=NAME] [tag=T]   an image with its config and layer
//	index NAME CHILD... [tag=T]       an index
//	tag T NAME, untag T, restore T    tags; NAME~ in a tag is the hex of NAME's digest
//	delete NAME, hold NAME, release NAME, unlink LAYER, mount LAYER FROM
//	after DURATION                    time goes by
//	collect                           collects what is due and shows what is left
//
// The setting "keep-untagged" may stand on the first line.
func TestGCRules(t *testing.T) {
	files, err := filepath.Glob("testdata/gc/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(text)
			if len(a.Files) != 2 || a.Files[0].Name != "story" || a.Files[1].Name != "left" {
				t.Fatal("want the files story and left")
			}
			s := newStory(t, strings.Contains(string(a.Files[0].Data), "keep-untagged"))
			for line := range strings.Lines(string(a.Files[0].Data)) {
				s.line(strings.TrimSpace(line))
			}
			wantSound(t, s.c)
			if diff := cmp.Diff(string(a.Files[1].Data), s.out.String()); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

// story is a registry whose manifests and blobs have names.
type story struct {
	*contenttest.Suite
	clk   *clock
	d     *db.DB
	store *mem.Store
	c     *content.Content
	repo  gatehouse.Repo
	names map[string]gatehouse.Descriptor // of manifests
	blobs map[string]string               // bytes by name
	repos map[gatehouse.Repo]bool
	out   strings.Builder
}

func newStory(t *testing.T, keepUntagged bool) *story {
	s := &story{clk: &clock{}, store: mem.New(), names: map[string]gatehouse.Descriptor{}, blobs: map[string]string{}, repos: map[gatehouse.Repo]bool{}}
	s.d = openDB(t, db.Options{Now: s.clk.now})
	s.c = content.New(s.d, s.store, content.Options{GC: content.GCOptions{KeepUntagged: keepUntagged}})
	s.Suite = &contenttest.Suite{T: t, C: s.c}
	return s
}

func (s *story) line(line string) {
	s.Helper()
	words := strings.Fields(line)
	if line == "" || line[0] == '#' || line == "keep-untagged" {
		return
	}
	s.repo = "a"
	if n := len(words); n > 2 && words[n-2] == "in" {
		s.repo, words = gatehouse.Repo(words[n-1]), words[:n-2]
	}
	s.repos[s.repo] = true
	options := map[string]string{}
	words = slices.DeleteFunc(words, func(w string) bool {
		key, value, ok := strings.Cut(w, "=")
		if ok {
			options[key] = value
		}
		return ok
	})
	var err error
	switch args := words[1:]; words[0] {
	case "blob":
		s.PushBlob(s.repo, s.blob(args[0]))
	case "push":
		s.push(args[0], options)
	case "index":
		s.index(args[0], args[1:], options)
	case "tag":
		s.tag(args[0], args[1])
	case "untag":
		err = s.c.DeleteTag(s.Context(), contenttest.Pusher, s.repo, s.tagName(args[0]))
	case "restore":
		_, err = s.c.RestoreTag(s.Context(), contenttest.Pusher, s.repo, s.tagName(args[0]), "")
	case "delete":
		err = s.c.DeleteManifest(s.Context(), contenttest.Pusher, s.repo, s.digest(args[0]))
	case "hold":
		err = s.c.Hold(s.Context(), contenttest.Pusher, s.repo, s.digest(args[0]), "a case")
	case "release":
		err = s.c.Release(s.Context(), contenttest.Pusher, s.repo, s.digest(args[0]))
	case "unlink":
		err = s.c.DeleteBlob(s.Context(), contenttest.Pusher, s.repo, gatehouse.DigestOf([]byte(s.blob(args[0]))))
	case "mount":
		_, err = s.c.MountBlob(s.Context(), contenttest.Pusher, s.repo, gatehouse.Repo(args[1]), gatehouse.DigestOf([]byte(s.blob(args[0]))))
	case "after":
		var d time.Duration
		d, err = time.ParseDuration(args[0])
		s.clk.ahead += d
	case "collect":
		_, err = s.c.Collect(s.Context(), content.CollectOptions{})
		s.show()
	default:
		s.Fatalf("what is %q?", line)
	}
	if err != nil {
		s.Fatalf("%s: %v", line, err)
	}
}

// blob is the bytes of a name; those of big ones lie in storage.
func (s *story) blob(name string) string {
	if s.blobs[name] == "" {
		s.blobs[name] = strings.Repeat("blob "+name+" ", 1+strings.Count(name, "big")*20_000)
	}
	return s.blobs[name]
}

func (s *story) digest(name string) gatehouse.Digest {
	d, ok := s.names[name]
	if !ok {
		s.Fatalf("there is no %s yet", name)
	}
	return d.Digest
}

func (s *story) tagName(tag string) string {
	if name, suffix, ok := strings.Cut(tag, "~"); ok {
		return "sha256-" + s.digest(name).Hex() + suffix
	}
	return tag
}

func (s *story) tags(options map[string]string) []string {
	if options["tag"] == "" {
		return nil
	}
	return []string{s.tagName(options["tag"])}
}

func (s *story) push(name string, options map[string]string) {
	s.Helper()
	layer := options["layer"]
	if layer == "" {
		layer = "layer-" + name
	}
	i := contenttest.Image{Config: s.blob("config"), Layers: []string{s.blob(layer)}, Annotations: map[string]string{"name": name}}
	if subject := options["subject"]; subject != "" {
		d, ok := s.names[subject]
		if !ok { // not pushed yet: an image of that name, as it will be
			d = contenttest.Describe(contenttest.OCIManifest, string(contenttest.Image{Config: s.blob("config"),
				Layers: []string{s.blob("layer-" + subject)}, Annotations: map[string]string{"name": subject}}.Body()))
		}
		i.Subject, i.ArtifactType = &d, "application/x"
	}
	s.names[name] = s.Push(s.repo, i, s.tags(options)...)
}

func (s *story) index(name string, children []string, options map[string]string) {
	s.Helper()
	var list []gatehouse.Descriptor
	for _, child := range children {
		list = append(list, gatehouse.Descriptor{MediaType: s.names[child].MediaType, Digest: s.digest(child), Size: s.names[child].Size})
	}
	m, err := s.Put(s.repo, contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, list...), s.tags(options)...)
	if err != nil {
		s.Fatal(err)
	}
	s.names[name] = m.Descriptor
}

func (s *story) tag(tag, name string) {
	s.Helper()
	m, err := s.c.Manifest(s.Context(), s.repo, s.digest(name))
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.Put(s.repo, m.MediaType, m.Body, s.tagName(tag)); err != nil {
		s.Fatal(err)
	}
}

// show writes what is left: manifests, tags and blobs by name, and the objects in
// storage.
func (s *story) show() {
	s.Helper()
	for _, repo := range slices.Sorted(maps.Keys(s.repos)) {
		var names, tags []string
		for _, name := range slices.Sorted(maps.Keys(s.names)) {
			if _, err := s.c.Manifest(s.Context(), repo, s.names[name].Digest); err == nil {
				names = append(names, name)
			} else if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				s.Fatal(err)
			}
		}
		list, err := s.c.Tags(s.Context(), repo, "", 100)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			s.Fatal(err)
		}
		for _, tag := range list {
			for name, d := range s.names {
				tag = strings.Replace(tag, "sha256-"+d.Digest.Hex(), name+"~", 1)
			}
			tags = append(tags, tag)
		}
		slices.Sort(tags)
		var blobs []string
		for _, name := range slices.Sorted(maps.Keys(s.blobs)) {
			if _, err := s.c.StatBlob(s.Context(), repo, gatehouse.DigestOf([]byte(s.blobs[name]))); err == nil {
				blobs = append(blobs, name)
			}
		}
		fmt.Fprintf(&s.out, "%s: manifests [%s] tags [%s] blobs [%s]\n", repo, strings.Join(names, " "), strings.Join(tags, " "), strings.Join(blobs, " "))
	}
	objects, err := s.store.List(s.Context(), "", 100)
	if err != nil {
		s.Fatal(err)
	}
	if len(objects) > 0 {
		fmt.Fprintf(&s.out, "%d objects in storage\n", len(objects))
	}
}
