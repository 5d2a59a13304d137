package registry_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/gatehouse-dev/gatehouse"
)

// clientTimeout bounds one run of a client, which should take a second.
const clientTimeout = 2 * time.Minute

// client is a real registry client with a home of its own.
type client struct {
	t    *testing.T
	path string
	env  []string
	home string
}

// newClient finds a tool: where env names it, in the cache of built tools, or on
// the path. A missing tool skips the test by name, or fails it where all tools
// are required.
func newClient(t *testing.T, name, version, env string) *client {
	t.Helper()
	home := t.TempDir()
	path := findTool(name, version, env)
	if path == "" {
		if os.Getenv("GATEHOUSE_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%s is not here, and GATEHOUSE_REQUIRE_TOOLS=1", name)
		}
		t.Skipf("%s is not here (install it, or name it by %s)", name, env)
	}
	return &client{t: t, path: path, home: home, env: []string{
		"HOME=" + home, "DOCKER_CONFIG=" + home, "XDG_RUNTIME_DIR=" + home, "REGCTL_CONFIG=" + filepath.Join(home, "regctl.json"),
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + home, "NO_COLOR=1",
	}}
}

func findTool(name, version, env string) string {
	if path := os.Getenv(env); path != "" {
		return path
	}
	if version != "" {
		cache := os.Getenv("XDG_CACHE_HOME")
		if home, err := os.UserHomeDir(); cache == "" && err == nil {
			cache = filepath.Join(home, ".cache")
		}
		path := filepath.Join(cache, "gatehouse-test", name+"-"+version, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// login writes the auth file that docker login would.
func (c *client) login(host, user, password string) {
	c.t.Helper()
	c.loginTo(user, password, host)
}

// loginTo is login to several registries.
func (c *client) loginTo(user, password string, hosts ...string) {
	c.t.Helper()
	auths := map[string]any{}
	for _, host := range hosts {
		auths[host] = map[string]any{"username": user, "password": password, "auth": []byte(user + ":" + password)}
	}
	doc, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.home, "config.json"), doc, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) try(stdin string, args ...string) (stdout, all string, err error) {
	ctx, stop := context.WithTimeout(c.t.Context(), clientTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = c.env, c.home, strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return strings.TrimSpace(out.String()), out.String() + errs.String(), err
}

// run wants success and returns what was printed.
func (c *client) run(args ...string) string {
	c.t.Helper()
	return c.runWith("", args...)
}

func (c *client) runWith(stdin string, args ...string) string {
	c.t.Helper()
	out, all, err := c.try(stdin, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", filepath.Base(c.path), strings.Join(args, " "), err, all)
	}
	return out
}

// fail wants failure and a message that contains text.
func (c *client) fail(text string, args ...string) {
	c.t.Helper()
	_, all, err := c.try("", args...)
	if err == nil {
		c.t.Fatalf("%s %s: succeeded\n%s", filepath.Base(c.path), strings.Join(args, " "), all)
	}
	if !strings.Contains(strings.ToLower(all), strings.ToLower(text)) {
		c.t.Errorf("%s %s: the message does not say %q:\n%s", filepath.Base(c.path), strings.Join(args, " "), text, all)
	}
}

// image makes an OCI image with random layers.
func image(t *testing.T, layers int64, size int64) v1.Image {
	t.Helper()
	return imageOf(t, "amd64", layers, size)
}

func imageOf(t *testing.T, arch string, layers int64, size int64) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for range layers {
		layer, err := random.Layer(size, types.OCIUncompressedLayer)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// index makes an OCI index of two images.
func index(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: imageOf(t, arch, 2, 2048), Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: arch},
		}})
	}
	return idx
}

// writeLayout writes an OCI layout that holds one thing under the name v1.
func writeLayout(t *testing.T, what any) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "v1"})
	switch what := what.(type) {
	case v1.Image:
		err = l.AppendImage(what, named)
	case v1.ImageIndex:
		err = l.AppendIndex(what, named)
	default:
		t.Fatalf("a layout of %T", what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantLayout wants exactly one manifest in a layout, with this digest, and all
// of its bytes whole.
func wantLayout(t *testing.T, dir string, want string) {
	t.Helper()
	l, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || m.Manifests[0].Digest.String() != want {
		t.Fatalf("the layout holds %+v, want %s", m.Manifests, want)
	}
	if err := validate.Index(idx); err != nil {
		t.Errorf("what was pulled is not whole: %v", err)
	}
}

func digestOf(t *testing.T, what interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := what.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// mounts counts the blobs that were mounted.
type mounts struct {
	gatehouse.Content
	done atomic.Int64
}

func (m *mounts) MountBlob(ctx context.Context, actor gatehouse.Actor, repo, from gatehouse.Repo, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	d, err := m.Content.MountBlob(ctx, actor, repo, from, digest)
	if err == nil {
		m.done.Add(1)
	}
	return d, err
}

func newCountingHouse(t *testing.T) (*house, *mounts) {
	t.Helper()
	m := &mounts{}
	h := newHouse(t, setup{wrap: func(c gatehouse.Content) gatehouse.Content { m.Content = c; return m }})
	return h, m
}
