package pipeline_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
)

// published is what a feed publishes, whole.
func published(feed string, records ...string) gatehouse.Publication {
	body := "[" + strings.Join(records, ",") + "]"
	return gatehouse.Publication{
		Feed: feed, Format: gatehouse.FormatOSV, Whole: true, Source: "test", Version: "etag:1",
		Records: osv.Read(context.Background(), "test.json", strings.NewReader(body), int64(len(body)), osv.DefaultLimits()),
	}
}

// inForce waits until a generation answers for everything.
func (h *house) inForce(gen db.Generation, err error) db.Generation {
	h.t.Helper()
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

// vulnerable pushes an image with two npm packages.
func (h *house) vulnerable() gatehouse.Digest {
	h.t.Helper()
	app, appID := layer(h.t, npm("minimist", "1.2.5"), npm("lodash", "4.17.4"))
	return h.push("a/app", [][]byte{app}, []gatehouse.Digest{appID})
}

const (
	minimist = "CVE-2021-44906 minimist 1.2.5"
	lodash   = "CVE-2019-10744 lodash 4.17.4"
)

// TestFeedsComeTogether: what several feeds bring is one generation, and each
// takes back what only it said.
func TestFeedsComeTogether(t *testing.T) {
	h := open(t, t.TempDir()).work()
	image := h.vulnerable()
	h.indexed(image)
	actor := gatehouse.System("feeds")
	one, both := flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"), flaw("CVE-2019-10744", "npm", "lodash", "4.17.12")
	gen := h.inForce(h.advisories.Update(t.Context(), actor, []gatehouse.Publication{published("osv/a", one, both), published("osv/b", both)}))
	if diff := cmp.Diff([]string{lodash, minimist}, h.vulns(image)); diff != "" || gen.ID != 1 {
		t.Errorf("generation %d:\n%s", gen.ID, diff)
	}
	h.inForce(h.advisories.Update(t.Context(), actor, []gatehouse.Publication{published("osv/a", flaw("CVE-1", "npm", "other", "1"))}))
	if diff := cmp.Diff([]string{lodash}, h.vulns(image)); diff != "" {
		t.Errorf("one feed took back both, the other one still says one:\n%s", diff)
	}
}

// exported copies the file of a generation to where a replacement comes from.
func (h *house) exported(gen db.Generation, dir string) string {
	h.t.Helper()
	b, err := os.ReadFile(h.advisories.Path(gen))
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(dir, "advisories", "import.tmp")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// TestReplacedDatabaseMovesVerdicts, although it was built upon other generations
// than those that are here, and so says nothing of what differs from them.
func TestReplacedDatabaseMovesVerdicts(t *testing.T) {
	elsewhere := open(t, t.TempDir()).work()
	elsewhere.publish(flaw("CVE-2019-10744", "npm", "lodash", "4.17.12"))
	theirs := elsewhere.publish(flaw("CVE-1", "npm", "other", "1")) // its parent's difference is "other" only
	dir := t.TempDir()
	h := open(t, dir).work()
	image := h.vulnerable()
	h.publish(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"))
	if diff := cmp.Diff([]string{minimist}, h.vulns(image)); diff != "" {
		t.Fatal(diff)
	}
	file := elsewhere.exported(theirs, dir) // before it is swept away there
	gen := h.inForce(h.advisories.Replace(t.Context(), gatehouse.Actor{Name: "tester"}, file, "export.tar", false))
	if diff := cmp.Diff([]string{lodash}, h.vulns(image)); diff != "" || gen.Digest != theirs.Digest {
		t.Errorf("generation %s, want %s:\n%s", gen.Digest, theirs.Digest, diff)
	}
	// What is built upon it knows its difference again.
	h.publish(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"))
	if diff := cmp.Diff([]string{lodash, minimist}, h.vulns(image)); diff != "" {
		t.Error(diff)
	}
	var last string
	err := h.db.Read(t.Context(), func(tx *db.Tx) error {
		list, err := tx.Audit(t.Context(), 0, 100)
		for _, a := range list {
			last += a.Actor + " " + a.Action + " " + a.Detail + "\n"
		}
		return err
	})
	if err != nil || !strings.Contains(last, "tester advisories.replace export.tar\n") {
		t.Errorf("audit: %s, %v", last, err)
	}
}

// TestReplaceRefuses what is no advisory file, and leaves all as it was.
func TestReplaceRefuses(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir).work()
	gen := h.publish(flaw("CVE-1", "npm", "other", "1"))
	path := filepath.Join(dir, "advisories", "import.tmp")
	if err := os.WriteFile(path, []byte("no advisory file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if _, err := h.advisories.Replace(t.Context(), gatehouse.Actor{Name: "tester"}, path, "x", force); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("force %v: %v", force, err)
		}
	}
	now, file, release, err := h.advisories.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if now.ID != gen.ID || file.Meta().Records != 1 {
		t.Errorf("generation %d with %d records", now.ID, file.Meta().Records)
	}
}
