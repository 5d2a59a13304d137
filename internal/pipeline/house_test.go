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
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	h.content = content.New(h.db, h.store, content.Options{OnPush: pipeline.Pushed, OnAttached: pipeline.Attached, MaySign: pipeline.MaySign})
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
