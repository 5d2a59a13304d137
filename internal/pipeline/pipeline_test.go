package pipeline_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

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
		"not gzip":        {[][]byte{good, []byte("this is no layer")}, []gatehouse.Digest{goodID, gatehouse.DigestOf(nil)}, nil, "partly indexed"},
		"truncated":       {[][]byte{good[:len(good)/2]}, []gatehouse.Digest{goodID}, nil, "partly indexed"},
		"layer 600 times": {slices.Repeat([][]byte{good}, 600), slices.Repeat([]gatehouse.Digest{goodID}, 600), nil, "more than 512 layers"},
		"claimed diffID":  {[][]byte{good}, []gatehouse.Digest{gatehouse.DigestOf(nil)}, nil, "diffID"},
		"broken config":   {[][]byte{good}, nil, []byte("{"), "configuration"},
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

// TestImagesThatAreMadeToMatch: an image whose packages were made up so that every
// advisory hits them again and again is not matched, which is told, and costs the
// others nothing.
func TestImagesThatAreMadeToMatch(t *testing.T) {
	pipeline.SetFindingsMax(t, 100)
	h := open(t, t.TempDir()).work()
	var flaws []string
	for i := range 30 {
		flaws = append(flaws, flaw(fmt.Sprintf("CVE-2024-%04d", i), "npm", "a", "2000.0.0"))
	}
	h.publish(flaws...)
	versions := func(name string, n int) gatehouse.Digest {
		var files []file
		for i := range n {
			f := npm(name, fmt.Sprintf("%d.0.0", i))
			f.name = fmt.Sprintf("app/%d/%s", i, f.name)
			files = append(files, f)
		}
		blob, id := layer(t, files...)
		return h.push(gatehouse.Repo(fmt.Sprintf("a/of%d", n)), [][]byte{blob}, []gatehouse.Digest{id})
	}
	for d, says := range map[gatehouse.Digest]string{
		versions("a", 4):    "more than 100 vulnerabilities",
		versions("b", 1001): "more than 1000 versions of b", // nothing is known of it yet
	} {
		if img := h.indexed(d); !img.Failed || img.Complete || !strings.Contains(strings.Join(img.Reasons, "; "), says) {
			t.Errorf("failed %v, %q, want %q", img.Failed, img.Reasons, says)
		}
		if got := h.vulns(d); len(got) != 0 {
			t.Errorf("%d findings are stored", len(got))
		}
	}
	if img := h.indexed(versions("a", 3)); img.Failed || !img.Complete || len(h.vulns(img.Digest)) != 90 {
		t.Errorf("3 versions: %+v", img)
	}
	h.publish(flaw("CVE-2024-9999", "npm", "a", "2000.0.0")) // concerns what was matched, and only that
	if got := h.vulns(versions("a", 3)); len(got) != 93 {
		t.Errorf("after the next feed %d findings", len(got))
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

// TestMatchOfEverythingTells compares what a match of everything tells with what
// it does: one event for each flaw of a package that came or went, none for
// those that stay, and when each was first seen.
func TestMatchOfEverythingTells(t *testing.T) { bothWays(t, matchOfEverythingTells) }

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
