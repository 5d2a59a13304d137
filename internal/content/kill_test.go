package content_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// pusherDir, when it is set, makes the test binary a process that pushes into
// that directory until it is killed.
const pusherDir = "GATEHOUSE_TEST_PUSHER_DIR"

// pusherDatabase is the PostgreSQL of the test and its pushers; without it they
// use a file in the directory.
const pusherDatabase = "GATEHOUSE_TEST_PUSHER_DATABASE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(pusherDir); dir != "" {
		if err := pushForEver(place{dir, os.Getenv(pusherDir + "_STORAGE")}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(copierDir); dir != "" {
		fmt.Fprintln(os.Stderr, copyForEver(place{dir: dir}))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// place is where the rows lie, and the bytes.
type place struct {
	dir     string
	storage string // URL of a bucket; empty: in dir too
}

func (p place) store(ctx context.Context) (blob.Store, error) {
	if p.storage == "" {
		return disk.Open(p.dir)
	}
	return s3.Open(ctx, p.storage, s3.Options{Getenv: os.Getenv, Transport: &http.Transport{}})
}

func openDir(ctx context.Context, p place) (*content.Content, *db.DB, error) {
	open := func() (*db.DB, error) { return db.OpenSQLite(ctx, filepath.Join(p.dir, "gatehouse.db"), db.Options{}) }
	if url := os.Getenv(pusherDatabase); url != "" {
		open = func() (*db.DB, error) { return db.OpenPostgres(ctx, url, db.Options{}) }
	}
	d, err := open()
	if err != nil {
		return nil, nil, err
	}
	store, err := p.store(ctx)
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	return content.New(d, store, content.Options{}), d, nil
}

// killedImage is the n-th image of a round: some of its parts are shared.
func killedImage(n int) contenttest.Image {
	return contenttest.Image{
		Config: fmt.Sprintf(`{"n":%d}`, n),
		Layers: []string{strings.Repeat(fmt.Sprintf("layer %d ", n/2), 20_000), fmt.Sprintf("small %d", n)},
	}
}

// pushForEver pushes images in parallel and tells of each one that has been
// acknowledged.
func pushForEver(p place) error {
	ctx := context.Background()
	c, _, err := openDir(ctx, p)
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(os.Getenv(pusherDir + "_FIRST"))
	if err != nil {
		return err
	}
	errs := make(chan error)
	for worker := range 3 {
		go func() {
			for n := first + worker; ; n += 3 {
				if err := pushImage(ctx, c, killedImage(n), fmt.Sprint("v", n)); err != nil {
					errs <- fmt.Errorf("image %d: %w", n, err)
					return
				}
				fmt.Println(n)
			}
		}()
	}
	return <-errs
}

func pushImage(ctx context.Context, c *content.Content, image contenttest.Image, tag string) error {
	for _, text := range append([]string{image.Config}, image.Layers...) {
		if err := pushBlob(ctx, c, text); err != nil {
			return err
		}
	}
	_, err := c.PutManifest(ctx, contenttest.Pusher, gatehouse.ManifestPut{Repo: "a/b", Tags: []string{tag}, MediaType: contenttest.OCIManifest, Body: image.Body()})
	return err
}

// TestKill kills a process in the middle of parallel pushes, again and again in
// the same directory. Every acknowledged image is whole, nothing else is visible
// by half, and rows and bytes agree.
func TestKill(t *testing.T) {
	rounds := 8
	if s := os.Getenv("GATEHOUSE_TEST_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	killRounds(t, place{dir: t.TempDir()}, rounds)
}

// TestKillOnS3: the same with the bytes on another machine, as it were.
func TestKillOnS3(t *testing.T) {
	b := s3test.Start(t)
	for _, e := range b.Env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	killRounds(t, place{t.TempDir(), b.URL}, 4)
}

func killRounds(t *testing.T, p place, rounds int) {
	if strings.HasPrefix(t.Name(), "TestPostgres/") {
		t.Setenv(pusherDatabase, dbtest.Postgres(t))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[int]bool{}
	for round := range rounds {
		killRound(t, p, round*10_000, random.IntN(12), time.Duration(random.IntN(20_000))*time.Microsecond, acknowledged)
		checkRound(t, p, acknowledged)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("no push was ever acknowledged: the rounds are too short")
	}
}

// killRound starts a pusher and kills it after so many acknowledgements and a
// little work more.
func killRound(t *testing.T, p place, first, acks int, pause time.Duration, acknowledged map[int]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pusherDir+"="+p.dir, pusherDir+"_STORAGE="+p.storage, fmt.Sprintf("%s_FIRST=%d", pusherDir, first))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill sync.Once
	defer kill.Do(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("the pusher says %q", lines.Text())
		}
		acknowledged[n] = true
		if seen == acks {
			time.Sleep(pause) // to hit another moment each time
			kill.Do(func() { cmd.Process.Kill() })
		}
	}
	cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("the pusher failed: %s", stderr.String())
	}
}

func checkRound(t *testing.T, p place, acknowledged map[int]bool) {
	t.Helper()
	c, d, err := openDir(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s := &contenttest.Suite{T: t, C: c}
	for n := range acknowledged {
		image := killedImage(n)
		m, err := c.ManifestByTag(t.Context(), "a/b", fmt.Sprint("v", n))
		if err != nil || string(m.Body) != string(image.Body()) {
			t.Fatalf("acknowledged image %d: %v", n, err)
		}
		for _, text := range append([]string{image.Config}, image.Layers...) {
			s.WantBlob("a/b", contenttest.Describe("", text), text)
		}
	}
	wantSound(t, c)
}
