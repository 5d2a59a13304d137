package pipeline_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// counting counts how often stored bytes are opened.
type counting struct {
	blob.Store
	opens atomic.Int64
}

func (c *counting) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	c.opens.Add(1)
	return c.Store.Open(ctx, key)
}

// house is one server's stages without its edges, in one directory.
type house struct {
	t          *testing.T
	dir        string
	db         *db.DB
	store      *counting
	content    *content.Content
	advisories *pipeline.Advisories
	pipeline   *pipeline.Pipeline
	stop       func()
}

// open opens a house; change may change what its pipeline is made of.
func open(t *testing.T, dir string, change ...func(h *house, o *pipeline.Options)) *house {
	t.Helper()
	h := &house{t: t, dir: dir}
	h.db = dbtest.At(t, dir, db.Options{})
	plain, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.store = &counting{Store: plain}
	if h.advisories, err = pipeline.OpenAdvisories(h.db, plain, filepath.Join(dir, "advisories")); err != nil {
		t.Fatal(err)
	}
	h.content = content.New(h.db, h.store, content.Options{OnPush: pipeline.Pushed})
	o := pipeline.Options{
		DB: h.db, Content: h.content, Advisories: h.advisories, Analysis: index.All(), Log: slog.New(slog.DiscardHandler),
		Registry: h.content, Pace: pipeline.Pace{Every: 5 * time.Millisecond, Look: 20 * time.Millisecond},
	}
	for _, f := range change {
		f(h, &o)
	}
	h.pipeline = pipeline.New(o)
	t.Cleanup(h.close)
	return h
}

// work runs the jobs until close.
func (h *house) work() *house {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	queue := job.New(h.db, job.Options{Poll: 50 * time.Millisecond, BackoffMin: 20 * time.Millisecond, BackoffMax: 50 * time.Millisecond})
	g.Go(func() error { return queue.Run(ctx, h.pipeline.Handlers()) })
	g.Go(func() error { return queue.Run(ctx, h.pipeline.SlowHandlers()) })
	g.Go(func() error { return h.pipeline.RunBackground(ctx) })
	h.stop = func() { cancel(); _ = g.Wait() }
	return h
}

func (h *house) close() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
	if h.db != nil {
		h.advisories.Close()
		h.db.Close()
		h.db = nil
	}
}

// file is a regular file, executable where its name is in bin.
type file struct{ name, body string }

func layer(t *testing.T, files ...file) (packed []byte, diffID gatehouse.Digest) {
	t.Helper()
	var plain, out bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, f := range files {
		mode := int64(0o644)
		if strings.HasPrefix(f.name, "bin/") && !strings.HasPrefix(f.name, "bin/.wh.") {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	w.Close()
	z := gzip.NewWriter(&out)
	z.Write(plain.Bytes())
	z.Close()
	return out.Bytes(), gatehouse.DigestOf(plain.Bytes())
}

func osRelease(id, version string) file {
	return file{"etc/os-release", "ID=" + id + "\nVERSION_ID=" + version + "\n"}
}

func apk(packages ...string) file {
	var b strings.Builder
	for _, p := range packages {
		name, version, _ := strings.Cut(p, " ")
		fmt.Fprintf(&b, "P:%s\nV:%s\nA:x86_64\no:%s\n\n", name, version, name)
	}
	return file{"lib/apk/db/installed", b.String()}
}

func npm(name, version string) file {
	return file{"app/node_modules/" + name + "/package.json", fmt.Sprintf(`{"name":%q,"version":%q}`, name, version)}
}

// noise is a file that compresses badly, so that its layer lies in a file too.
func noise() file {
	b := make([]byte, 4*content.InlineMax)
	rand.NewChaCha8([32]byte{}).Read(b)
	return file{"noise", string(b)}
}

// push stores an image as a client would. blobs are layers as stored; diffIDs
// are what the configuration claims.
func (h *house) push(repo gatehouse.Repo, blobs [][]byte, diffIDs []gatehouse.Digest) gatehouse.Digest {
	h.t.Helper()
	digest, err := h.tryPush(repo, blobs, diffIDs, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return digest
}

func (h *house) tryPush(repo gatehouse.Repo, blobs [][]byte, diffIDs []gatehouse.Digest, config []byte) (gatehouse.Digest, error) {
	ctx, actor := context.Background(), gatehouse.Actor{Name: "tester", Admin: true}
	if config == nil {
		cfg := gatehouse.ImageConfig{Architecture: "amd64", OS: "linux"}
		cfg.RootFS.Type, cfg.RootFS.DiffIDs = "layers", diffIDs
		var err error
		if config, err = json.Marshal(cfg); err != nil {
			return "", err
		}
	}
	var ds []gatehouse.Descriptor
	for i, b := range append([][]byte{config}, blobs...) {
		up, err := h.content.StartUpload(ctx, actor, repo, "")
		if err != nil {
			return "", err
		}
		if _, err := up.Append(ctx, 0, bytes.NewReader(b)); err != nil {
			return "", err
		}
		d, err := up.Commit(ctx, gatehouse.DigestOf(b))
		if err != nil {
			return "", err
		}
		d.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		if i == 0 {
			d.MediaType = "application/vnd.oci.image.config.v1+json"
		}
		ds = append(ds, d)
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "config": ds[0], "layers": ds[1:]})
	if err != nil {
		return "", err
	}
	m, err := h.content.PutManifest(ctx, actor, gatehouse.ManifestPut{Repo: repo, Tags: []string{"v1"}, MediaType: mediaType, Body: body})
	if err != nil {
		return "", err
	}
	return m.Digest, nil
}

// indexed waits for an image's analysis.
func (h *house) indexed(d gatehouse.Digest) db.Image {
	h.t.Helper()
	var img db.Image
	h.eventually("an indexed image", func() (ok bool) {
		err := h.db.Read(context.Background(), func(tx *db.Tx) (err error) {
			img, ok, err = tx.ImageByDigest(context.Background(), d)
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
		return ok
	})
	return img
}

func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// flaw is an OSV record about one npm or Alpine package.
func flaw(id, ecosystem, name, fixed string) string {
	return fmt.Sprintf(`{"schema_version":"1.6.0","id":%q,"modified":"2026-01-02T00:00:00Z",
		"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
		"affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":%q}]}]}]}`,
		id, ecosystem, name, fixed)
}

func (h *house) tryImport(records ...string) (db.Generation, error) {
	body := "[" + strings.Join(records, ",") + "]"
	info := advisory.Info{Source: "test", BuiltAt: time.Unix(1, 0)}
	return h.advisories.Import(context.Background(), gatehouse.Actor{Name: "tester"}, info,
		osv.Read(context.Background(), "test.json", strings.NewReader(body), int64(len(body)), osv.DefaultLimits()))
}

// publish imports records and waits until every verdict answers by them.
func (h *house) publish(records ...string) db.Generation {
	h.t.Helper()
	gen, err := h.tryImport(records...)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if gen, err = h.advisories.InForce(ctx, gen); err != nil {
		h.t.Fatal(err)
	}
	return gen
}

func (h *house) vulns(d gatehouse.Digest) []string {
	h.t.Helper()
	h.indexed(d)
	var img db.Image
	out := []string{}
	// One look for both: a match may come between two.
	err := h.db.Read(context.Background(), func(tx *db.Tx) (err error) {
		if img, _, err = tx.ImageByDigest(context.Background(), d); err != nil {
			return err
		}
		fs, err := tx.FindingsOfImage(context.Background(), img)
		for _, f := range fs {
			if f.Kind != gatehouse.KindVulnerability {
				continue
			}
			out = append(out, f.ID+" "+f.Package.Name+" "+f.Package.Version)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if img.Counts.All[gatehouse.SeverityCritical] != len(out) {
		h.t.Errorf("%d critical counted, %d findings listed", img.Counts.All[gatehouse.SeverityCritical], len(out))
	}
	slices.Sort(out)
	return out
}

func TestNewAdvisoryFlagsStoredImagesWithNothingReadAgain(t *testing.T) {
	h := open(t, t.TempDir()).work()
	base, baseID := layer(t, osRelease("alpine", "3.16.0"), apk("zlib 1.2.12-r1", "musl 1.2.3-r0"), noise())
	app, appID := layer(t, npm("minimist", "1.2.5"))
	other, otherID := layer(t, npm("lodash", "4.17.21"))
	one := h.push("a/one", [][]byte{base, app}, []gatehouse.Digest{baseID, appID})
	two := h.push("a/two", [][]byte{base, other}, []gatehouse.Digest{baseID, otherID})
	if got := h.vulns(one); len(got) != 0 {
		t.Fatalf("without advisories: %v", got)
	}
	h.indexed(two)
	opens := h.store.opens.Load()

	h.publish(flaw("CVE-2022-37434", "Alpine:v3.16", "zlib", "1.2.12-r2"))
	if diff := cmp.Diff([]string{"CVE-2022-37434 zlib 1.2.12-r1"}, h.vulns(one)); diff != "" {
		t.Errorf("one:\n%s", diff)
	}
	h.publish(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"))
	if diff := cmp.Diff([]string{"CVE-2021-44906 minimist 1.2.5", "CVE-2022-37434 zlib 1.2.12-r1"}, h.vulns(one)); diff != "" {
		t.Errorf("one:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"CVE-2022-37434 zlib 1.2.12-r1"}, h.vulns(two)); diff != "" {
		t.Errorf("two:\n%s", diff)
	}
	if n := h.store.opens.Load(); n != opens {
		t.Errorf("%d blobs were opened for the advisories", n-opens)
	}
	// A corrected advisory clears the image; a withdrawn one too.
	h.publish(flaw("CVE-2022-37434", "Alpine:v3.16", "zlib", "1.2.12-r1"))
	if got := h.vulns(two); len(got) != 0 {
		t.Errorf("after the correction: %v", got)
	}
}

func TestLayerIsReadOnce(t *testing.T) {
	h := open(t, t.TempDir()).work()
	base, baseID := layer(t, osRelease("alpine", "3.16.0"), apk("zlib 1.2.12-r1"), noise())
	if len(base) <= content.InlineMax {
		t.Fatal("the layer is so small that it lies in the database")
	}
	h.indexed(h.push("a/one", [][]byte{base}, []gatehouse.Digest{baseID}))
	opens := h.store.opens.Load()
	app, appID := layer(t, npm("minimist", "1.2.5"))
	h.indexed(h.push("b/two", [][]byte{base, app}, []gatehouse.Digest{baseID, appID}))
	// Small blobs lie in the database; the base is the only one with a file.
	if n := h.store.opens.Load() - opens; opens != 1 || n != 0 {
		t.Errorf("the first image opened %d files, the second %d; want 1 and 0", opens, n)
	}
	err := h.db.Read(t.Context(), func(tx *db.Tx) error {
		_, ok, err := tx.LayerByBlob(t.Context(), gatehouse.DigestOf(base), index.All().Version())
		if !ok {
			t.Error("the base layer is not known by its bytes")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpperLayersHide(t *testing.T) {
	h := open(t, t.TempDir()).work()
	l1, d1 := layer(t, npm("minimist", "1.2.5"), npm("lodash", "4.17.4"))
	l2, d2 := layer(t, file{"app/node_modules/.wh.lodash", ""})
	l3, d3 := layer(t, npm("minimist", "1.2.6"))
	h.publish(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"), flaw("CVE-2019-10744", "npm", "lodash", "4.17.12"))
	lower := h.push("a/lower", [][]byte{l1}, []gatehouse.Digest{d1})
	upper := h.push("a/upper", [][]byte{l1, l2, l3}, []gatehouse.Digest{d1, d2, d3})
	if got := h.vulns(lower); len(got) != 2 {
		t.Errorf("lower: %v", got)
	}
	if got := h.vulns(upper); len(got) != 0 {
		t.Errorf("upper: %v", got)
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	h := open(t, t.TempDir()).work()
	good, goodID := layer(t, osRelease("alpine", "3.16.0"), apk("zlib 1.2.12-r1"))
	for name, c := range map[string]struct {
		blobs   [][]byte
		diffIDs []gatehouse.Digest
		config  []byte
		want    string
	}{
		"not gzip":       {[][]byte{good, []byte("this is no layer")}, []gatehouse.Digest{goodID, gatehouse.DigestOf(nil)}, nil, "partly indexed"},
		"truncated":      {[][]byte{good[:len(good)/2]}, []gatehouse.Digest{goodID}, nil, "partly indexed"},
		"claimed diffID": {[][]byte{good}, []gatehouse.Digest{gatehouse.DigestOf(nil)}, nil, "diffID"},
		"broken config":  {[][]byte{good}, nil, []byte("{"), "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			d, err := h.tryPush("bad/image", c.blobs, c.diffIDs, c.config)
			if err != nil {
				t.Fatal(err)
			}
			img := h.indexed(d)
			if img.Complete || !strings.Contains(strings.Join(img.Reasons, "; "), c.want) {
				t.Errorf("complete %v, reasons %q, want %q", img.Complete, img.Reasons, c.want)
			}
		})
	}
	h.t = t
	if img := h.indexed(h.push("good/image", [][]byte{good}, []gatehouse.Digest{goodID})); !img.Complete {
		t.Errorf("a good image after bad ones: %q", img.Reasons)
	}
}

// A manifest may name a layer that it says is not to be pushed. Naming another
// repository's private layer must not tell what is in it.
func TestNamedButNotHeldLayerTellsNothing(t *testing.T) {
	h := open(t, t.TempDir()).work()
	secret, id := layer(t, npm("in-house", "1.0.0"))
	h.indexed(h.push("private/app", [][]byte{secret}, []gatehouse.Digest{id}))
	h.publish(flaw("CVE-1", "npm", "in-house", "2.0.0"))

	ctx, actor := t.Context(), gatehouse.Actor{Name: "stranger"}
	cfg := gatehouse.ImageConfig{Architecture: "amd64", OS: "linux"}
	cfg.RootFS.Type, cfg.RootFS.DiffIDs = "layers", []gatehouse.Digest{id}
	config, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	up, err := h.content.StartUpload(ctx, actor, "mine/app", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Append(ctx, 0, bytes.NewReader(config)); err != nil {
		t.Fatal(err)
	}
	d, err := up.Commit(ctx, gatehouse.DigestOf(config))
	if err != nil {
		t.Fatal(err)
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	d.MediaType = "application/vnd.oci.image.config.v1+json"
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "config": d, "layers": []gatehouse.Descriptor{{
		MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: gatehouse.DigestOf(secret), Size: int64(len(secret)),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.content.PutManifest(ctx, actor, gatehouse.ManifestPut{Repo: "mine/app", MediaType: mediaType, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	img := h.indexed(m.Digest)
	if got := h.vulns(m.Digest); len(got) != 0 || img.Complete || !strings.Contains(strings.Join(img.Reasons, "; "), "not in this repository") {
		t.Errorf("complete %v, findings %v, reasons %q", img.Complete, got, img.Reasons)
	}
}

func TestWorkSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir) // nobody works
	l, d := layer(t, npm("minimist", "1.2.5"))
	img := h.push("a/b", [][]byte{l}, []gatehouse.Digest{d})
	if _, err := h.tryImport(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6")); err != nil {
		t.Fatal(err)
	}
	h.close()
	h = open(t, dir).work()
	h.eventually("the finding", func() bool { return len(h.vulns(img)) == 1 })
}

func TestMalformedImportChangesNothing(t *testing.T) {
	h := open(t, t.TempDir()).work()
	before := h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	for _, bad := range []string{`{"id":`, `{"id":"X","affected":7}`, `7`} {
		if _, err := h.tryImport(flaw("CVE-2", "npm", "lodash", "2"), bad); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	_, file, release, err := h.advisories.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if n := file.Meta().Records; n != 1 {
		t.Errorf("%d records in force", n)
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "advisories", "*"))
	if err != nil || len(files) != 1 || !strings.Contains(files[0], before.Digest.Hex()) {
		t.Errorf("files left: %v, %v", files, err)
	}
}

func TestOldGenerationsGo(t *testing.T) {
	h := open(t, t.TempDir()).work()
	for i := range 5 {
		h.publish(flaw(fmt.Sprint("CVE-", i), "npm", "minimist", "1.2.6"))
	}
	if err := h.advisories.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(h.dir, "advisories"))
	if err != nil || len(files) != 2 {
		t.Errorf("%d files left, %v; want the one in force and its parent", len(files), err)
	}
	h.publish(flaw("CVE-9", "npm", "minimist", "1.2.6"))
}

// TestPushesAndFeedsTogether pushes and publishes at once, and then compares
// every image with what matching it whole from the start would say.
func TestPushesAndFeedsTogether(t *testing.T) {
	h := open(t, t.TempDir()).work()
	const pushers, images, feeds = 4, 12, 10
	type pushed struct {
		digest gatehouse.Digest
		layers []gatehouse.LayerInventory
		cfg    gatehouse.ImageConfig
	}
	all := make([][]pushed, pushers)
	var g errgroup.Group
	for p := range pushers {
		g.Go(func() error {
			for i := range images {
				n := p*images + i
				base, baseID := layer(t, osRelease("alpine", []string{"3.15.0", "3.16.0"}[n%2]), apk(fmt.Sprintf("zlib 1.2.%d-r0", n%5)))
				app, appID := layer(t, npm("minimist", fmt.Sprintf("1.2.%d", n%7)), npm("lodash", fmt.Sprintf("4.%d.0", n%3)))
				out := pushed{cfg: gatehouse.ImageConfig{}}
				out.cfg.RootFS.DiffIDs = []gatehouse.Digest{baseID, appID}
				var err error
				if out.digest, err = h.tryPush(gatehouse.Repo(fmt.Sprintf("p%d/i%d", p, i)), [][]byte{base, app}, out.cfg.RootFS.DiffIDs, nil); err != nil {
					return err
				}
				for _, b := range [][]byte{base, app} {
					inv, err := index.Layer(context.Background(), bytes.NewReader(b), index.DefaultLimits(), index.All())
					if err != nil {
						return err
					}
					out.layers = append(out.layers, inv)
				}
				all[p] = append(all[p], out)
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := range feeds {
			name, space := []string{"minimist", "lodash", "zlib"}[i%3], "npm"
			if name == "zlib" {
				space = "Alpine:v3.16"
			}
			fixed := map[string]string{"minimist": "1.2.%d", "lodash": "4.%d.0", "zlib": "1.2.%d-r0"}[name]
			if _, err := h.tryImport(flaw(fmt.Sprintf("CVE-2026-%d", i/2), space, name, fmt.Sprintf(fixed, i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	last := h.publish(flaw("CVE-2026-99", "npm", "minimist", "1.2.3"))
	_, file, release, err := h.advisories.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	found := 0
	for _, ps := range all {
		for _, p := range ps {
			inv := index.Compose(p.layers, p.cfg, p.digest)
			want, err := match.Findings(t.Context(), inv.Distro, inv.Packages, file)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for _, f := range want.Findings {
				names = append(names, f.ID+" "+f.Package.Name+" "+f.Package.Version)
			}
			slices.Sort(names)
			h.eventually("the image "+string(p.digest), func() bool { return !h.indexed(p.digest).IndexedAt.IsZero() })
			if diff := cmp.Diff(names, h.vulns(p.digest)); diff != "" {
				t.Errorf("%s by generation %d:\n%s", p.digest, last.ID, diff)
			}
			found += len(names)
		}
	}
	if found == 0 {
		t.Error("nothing was found at all: the test shows nothing")
	}
}

// TestMatchOfEverything does the same in the way that is meant for many changes.
func TestMatchOfEverything(t *testing.T) {
	pipeline.SetFew(t, 0)
	t.Run("ahead", TestPushesAndFeedsTogether)
	t.Run("while it is stored", func(t *testing.T) {
		pipeline.SetAheadMax(t, 0)
		TestPushesAndFeedsTogether(t)
	})
}

// TestMatchOfEverythingTells compares what a match of everything tells with what
// it does: one event for each flaw of a package that came or went, none for
// those that stay, and when each was first seen.
func TestMatchOfEverythingTells(t *testing.T) {
	pipeline.SetFew(t, 0)
	t.Run("ahead", matchOfEverythingTells)
	t.Run("while it is stored", func(t *testing.T) {
		pipeline.SetAheadMax(t, 0)
		matchOfEverythingTells(t)
	})
}

func matchOfEverythingTells(t *testing.T) {
	h := open(t, t.TempDir()).work()
	l, d := layer(t, npm("minimist", "1.2.5"), npm("lodash", "4.0.0"), npm("untouched", "1.0.0"))
	img := h.push("a/b", [][]byte{l}, []gatehouse.Digest{d})
	h.indexed(img)
	events := func() (out []string) {
		err := h.db.Read(t.Context(), func(tx *db.Tx) error {
			list, err := tx.Events(t.Context(), 0, 1000)
			out = nil
			for _, e := range list {
				var p struct{ Vulnerability, Package string }
				if e.Type == gatehouse.EventVulnNew || e.Type == gatehouse.EventVulnFixed {
					if err := json.Unmarshal(e.Payload, &p); err != nil {
						return err
					}
					out = append(out, strings.TrimSpace(fmt.Sprint(e.Type, " ", p.Vulnerability)))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	h.publish(flaw("CVE-2026-0001", "npm", "minimist", "1.2.6"), flaw("CVE-2026-0002", "npm", "lodash", "5.0.0"))
	h.publish(flaw("CVE-2026-0001", "npm", "minimist", "1.2.6"), flaw("CVE-2026-0002", "npm", "lodash", "3.0.0"), flaw("CVE-2026-0003", "npm", "minimist", "2.0.0"))
	want := []string{
		"vulnerability.fixed CVE-2026-0002", "vulnerability.new CVE-2026-0001", "vulnerability.new CVE-2026-0002", "vulnerability.new CVE-2026-0003",
	}
	h.eventually("the events", func() bool {
		got := events()
		slices.Sort(got)
		return slices.Equal(got, want)
	})
	if got := h.vulns(img); !slices.Equal(got, []string{"CVE-2026-0001 minimist 1.2.5", "CVE-2026-0003 minimist 1.2.5"}) {
		t.Errorf("findings %q", got)
	}
}

// TestKilledImportsLeaveNothing: what a killed process was building goes when
// the next one starts.
func TestKilledImportsLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"upload-1.tmp", "import-1.tmp", "import-1.tmp-journal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pipeline.OpenAdvisories(nil, nil, dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v left, %v", left, err)
	}
}
