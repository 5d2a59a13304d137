package content_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// copierDir, when it is set, makes the test binary a process that copies a tree
// from one repository to new ones until it is killed.
const copierDir = "GATEHOUSE_TEST_COPIER_DIR"

func copyForEver(p place) error {
	ctx := context.Background()
	c, d, err := openDir(ctx, p)
	if err != nil {
		return err
	}
	root, err := c.ManifestByTag(ctx, "dev/app", "v1")
	if err != nil {
		return err
	}
	tree, err := c.Tree(ctx, "dev/app", root.Digest)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		to := gatehouse.Repo(fmt.Sprintf("prod/%s%d", os.Getenv(copierDir+"_NAME"), n))
		if _, err := put(ctx, c, d, tree, to, "v1"); err != nil {
			return err
		}
		fmt.Println(to)
	}
}

// TestKillDuringCopies kills a process in the middle of its copies, again and
// again: each that was acknowledged is whole, and no other is visible by half.
func TestKillDuringCopies(t *testing.T) {
	if strings.HasPrefix(t.Name(), "TestPostgres/") {
		t.Setenv(pusherDatabase, dbtest.Postgres(t))
	}
	p := place{dir: t.TempDir()}
	c, d, err := openDir(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	planted := plant(&contenttest.Suite{T: t, C: c}, "dev/app")
	want := treeOf(t, c, "dev/app", planted.index.Digest).Size() - 1
	d.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[gatehouse.Repo]bool{}
	for round := range 6 {
		killCopier(t, p, fmt.Sprintf("r%d-", round), random.IntN(8), time.Duration(random.IntN(5_000))*time.Microsecond, acknowledged)
	}
	if c, d, err = openDir(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	repos, err := c.Repos(t.Context(), "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range repos {
		delete(acknowledged, repo)
		if m, err := c.ManifestByTag(t.Context(), repo, "v1"); err != nil || m.Digest != planted.index.Digest {
			t.Errorf("%s is visible without its tag: %v", repo, err)
			continue
		}
		if n := treeOf(t, c, repo, planted.index.Digest).Size(); repo != "dev/app" && n != want {
			t.Errorf("%s has %d manifests of %d", repo, n, want)
		}
	}
	if len(acknowledged) > 0 || len(repos) < 2 {
		t.Errorf("acknowledged and gone: %v; there are %d repositories", acknowledged, len(repos))
	}
	wantSound(t, c)
}

// killCopier starts a copier and kills it after so many copies and a little work
// more.
func killCopier(t *testing.T, p place, name string, acks int, pause time.Duration, acknowledged map[gatehouse.Repo]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), copierDir+"="+p.dir, copierDir+"_NAME="+name)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		acknowledged[gatehouse.Repo(lines.Text())] = true
		if seen == acks {
			time.Sleep(pause) // to hit another moment each time
			cmd.Process.Kill()
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("the copier failed: %s", stderr.String())
	}
}
