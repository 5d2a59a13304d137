package fetch_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// storedName is what the image of storedImage is called.
const storedName = "registry.example/team/app:v1"

// awkwardTar is a layer with all that a store must give back byte by byte:
// links, modes, times, empty files, long names, deletions.
func awkwardTar(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := strings.Repeat("long-name/", 30) + "file"
	for _, h := range []struct {
		tar.Header
		body string
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, ""},
		{tar.Header{Name: "etc/os-release", Typeflag: tar.TypeReg, Mode: 0o644}, "ID=debian\nVERSION_ID=12\n"},
		{tar.Header{Name: fmt.Sprintf("etc/only-%d", n), Typeflag: tar.TypeReg, Mode: 0o600}, strings.Repeat("x", 70_000)},
		{tar.Header{Name: "etc/empty", Typeflag: tar.TypeReg, Mode: 0o644}, ""},
		{tar.Header{Name: "etc/hard", Typeflag: tar.TypeLink, Linkname: "etc/os-release"}, ""},
		{tar.Header{Name: "etc/soft", Typeflag: tar.TypeSymlink, Linkname: "/proc/self/environ"}, ""},
		{tar.Header{Name: "usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755}, "#!/bin/sh\n"},
		{tar.Header{Name: long, Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX}, "deep"},
	} {
		h.Size, h.ModTime = int64(len(h.body)), time.Unix(1_700_000_000+int64(n), 0)
		if err := w.WriteHeader(&h.Header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, h.body)
	}
	if n > 0 {
		w.WriteHeader(&tar.Header{Name: fmt.Sprintf("etc/.wh.only-%d", n-1), Typeflag: tar.TypeReg, Mode: 0o644})
	}
	w.Close()
	return b.Bytes()
}

// storedImage writes an image of three layers as `docker save` does.
func storedImage(t *testing.T) (file string, diffIDs []gatehouse.Digest) {
	t.Helper()
	img := v1.Image(empty.Image)
	for n := range 3 {
		content := awkwardTar(t, n)
		diffIDs = append(diffIDs, gatehouse.DigestOf(content))
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config.User = "linux", "amd64", "app"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(storedName)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	return file, diffIDs
}

func localOptions(env map[string]string) fetch.LocalOptions {
	return fetch.LocalOptions{
		Getenv: func(k string) string { return env[k] },
		Unix:   egress.New(egress.Config{UserTyped: true}).Unix,
	}
}

// find looks for typed in one kind of store.
func find(t *testing.T, source, typed string, o fetch.LocalOptions) (*fetch.Local, error) {
	t.Helper()
	stores, err := fetch.LocalStores([]string{source}, o)
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := gatehouse.ParseRef(typed)
	var last error
	for _, s := range stores {
		found, err := s.Find(t.Context(), typed, ref, fetch.Platform{})
		if err == nil {
			return found, nil
		}
		last = errors.Join(last, err)
	}
	return nil, last
}

// checkStored reads the whole image, whose layers must be what they were.
func checkStored(t *testing.T, found *fetch.Local, diffIDs []gatehouse.Digest) *fetch.Image {
	t.Helper()
	img, err := found.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	if found.Key == "" || img.Platform.String() != "linux/amd64" || !strings.Contains(string(img.Config), `"User":"app"`) {
		t.Errorf("key %q, platform %s", found.Key, img.Platform)
	}
	var got []gatehouse.Digest
	for _, l := range img.Layers {
		rc, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		rc.Close()
		if err != nil {
			t.Fatalf("layer %s: %v", l.Digest, err)
		}
		if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
			b = gunzip(t, b)
		}
		got = append(got, gatehouse.DigestOf(b))
	}
	if !slices.Equal(got, diffIDs) {
		t.Errorf("the layers are\n%v, want\n%v", got, diffIDs)
	}
	return img
}

// podmanStore loads the image with real podman into a store of its own.
func podmanStore(t *testing.T, driver, file string) string {
	t.Helper()
	podman := tool.Need(t, "podman")
	dir := t.TempDir()
	root := filepath.Join(dir, "storage")
	args := []string{"--root", root, "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", driver,
		"--events-backend", "none", "--cgroup-manager", "cgroupfs", "load", "-i", file}
	cmd := exec.CommandContext(t.Context(), podman, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "CONTAINERS_STORAGE_CONF="+write(t, fmt.Sprintf("[storage]\ndriver = %q\nrunroot = %q\ngraphroot = %q\n", driver, filepath.Join(dir, "run"), root)))
	if out, err := cmd.CombinedOutput(); err != nil && driver == "vfs" {
		t.Fatalf("podman load: %v\n%s", err, out)
	} else if err != nil {
		t.Skipf("podman cannot use the driver %s here: %v\n%s", driver, err, out)
	}
	t.Cleanup(func() { // overlay leaves directories that only its owner may enter
		filepath.WalkDir(root, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return root
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestPodmanStore reads real stores, without podman.
func TestPodmanStore(t *testing.T) {
	file, diffIDs := storedImage(t)
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			root := podmanStore(t, driver, file)
			o := localOptions(map[string]string{"CONTAINERS_STORAGE_CONF": write(t, "# mine\n[storage.options]\ngraphroot = \"/wrong\"\n[storage]\ngraphroot = \""+root+"\"\n")})
			found, err := find(t, "podman", storedName, o)
			if err != nil {
				t.Fatal(err)
			}
			img := checkStored(t, found, diffIDs)
			if !img.Ref.Digest.Matches(img.Manifest) {
				t.Errorf("the digest %s is not that of the manifest", img.Ref.Digest)
			}
			o = localOptions(nil)
			o.PodmanRoot = root
			id := strings.Fields(found.Key)[0]
			for typed, there := range map[string]bool{
				id: true, "sha256:" + id: true, id[:12]: true, id[:4]: false, "registry.example/team/app@" + string(img.Ref.Digest): true,
				"registry.example/team/app:v2": false, "team/app:v1": false, "registry.example/team/app@" + string(diffIDs[0]): false,
			} {
				if _, err := find(t, "podman", typed, o); (err == nil) != there || err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
					t.Errorf("%s: %v, want it to be there: %v", typed, err, there)
				}
			}
			damagePodman(t, root, driver, found)
		})
	}
}

// damagePodman changes a file of a layer behind podman's back: what is read is
// not what the digest names, and that is told.
func damagePodman(t *testing.T, root, driver string, found *fetch.Local) {
	t.Helper()
	pattern := map[string]string{"vfs": "vfs/dir/*/etc/only-2", "overlay": "overlay/*/diff/etc/only-2"}[driver]
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file to damage: %v", err)
	}
	for change, want := range map[string]gatehouse.Code{strings.Repeat("y", 70_000): gatehouse.CodeInvalid, "short": gatehouse.CodeUnavailable} {
		for _, f := range files {
			if err := os.WriteFile(f, []byte(change), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		img, err := found.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rc, err := img.Layers[2].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = io.Copy(io.Discard, rc); gatehouse.CodeOf(err) != want {
			t.Errorf("a changed file: %v, want %s", err, want)
		}
		rc.Close()
		img.Close()
	}
}

// TestContainerd reads an image from a real containerd.
func TestContainerd(t *testing.T) {
	containerd, ctr := tool.Need(t, "containerd"), tool.Need(t, "ctr")
	file, diffIDs := storedImage(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "c.sock")
	config := write(t, fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket))
	startProgram(t, socket, containerd, "--config", config)
	for _, args := range [][]string{{"-n", "k8s.io", "images", "import", "--no-unpack", file}} {
		if out, err := exec.CommandContext(t.Context(), ctr, append([]string{"-a", socket}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ctr %v: %v\n%s", args, err, out)
		}
	}
	o := localOptions(map[string]string{"CONTAINERD_ADDRESS": "unix://" + socket})
	found, err := find(t, "containerd", storedName, o)
	if err != nil {
		t.Fatal(err)
	}
	checkStored(t, found, diffIDs)
	if _, err := find(t, "containerd", "registry.example/team/app:v2", o); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("another tag: %v", err)
	}
	o = localOptions(map[string]string{"CONTAINERD_ADDRESS": socket, "CONTAINERD_NAMESPACE": "default"})
	if _, err := find(t, "containerd", storedName, o); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("another namespace: %v", err)
	}
}

// startProgram runs a server until the test ends, and waits for its socket.
func startProgram(t *testing.T, socket, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", program, log)
		}
	})
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Skipf("%s does not run here:\n%s", program, log)
		default:
		}
	}
	t.Fatalf("%s does not listen", program)
}

// TestDockerDaemon reads an image from a real Docker daemon.
func TestDockerDaemon(t *testing.T) {
	dockerd := tool.Need(t, "dockerd")
	file, diffIDs := storedImage(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "d.sock")
	startProgram(t, socket, dockerd, "--host", "unix://"+socket, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--config-file", write(t, "{}"))
	load(t, socket, file)
	o := localOptions(map[string]string{"DOCKER_HOST": "unix://" + socket})
	found, err := find(t, "docker", storedName, o)
	if err != nil {
		t.Fatal(err)
	}
	checkStored(t, found, diffIDs)
	if _, err := find(t, "docker", "registry.example/team/app:v2", o); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("another tag: %v", err)
	}
}

// load posts an archive to a Docker daemon (ImageLoad).
func load(t *testing.T, socket, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := http.Client{Transport: egress.New(egress.Config{UserTyped: true}).Unix(socket, false)}
	res, err := c.Post("http://docker/images/load?quiet=1", "application/x-tar", f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("docker load: %d, %s, %v", res.StatusCode, b, err)
	}
}

// TestEngineAPI speaks to a server that answers as the documented Engine API
// does, also in ways that a healthy daemon does not.
func TestEngineAPI(t *testing.T) {
	file, diffIDs := storedImage(t)
	socket := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	id := gatehouse.DigestOf([]byte("config"))
	manifest := gatehouse.DigestOf([]byte("manifest"))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/", func(w http.ResponseWriter, r *http.Request) {
		switch rest := strings.TrimPrefix(r.URL.Path, "/images/"); rest {
		case storedName + "/json", "broken:1/json":
			json.NewEncoder(w).Encode(map[string]any{"Id": id, "RepoTags": []string{storedName},
				"RepoDigests": []string{"other.example/team/app@" + string(id), "registry.example/team/app@" + string(manifest)}})
		case string(id) + "/get":
			http.ServeFile(w, r, file)
		case "mad:1/json":
			io.WriteString(w, "<html>")
		case "sad:1/json":
			http.Error(w, `{"message":"\u001b[2Jno"}`, http.StatusInternalServerError)
		default:
			http.Error(w, `{"message":"No such image"}`, http.StatusNotFound)
		}
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	o := localOptions(nil)
	o.DockerHost = socket
	found, err := find(t, "docker", storedName, o)
	if err != nil {
		t.Fatal(err)
	}
	if img := checkStored(t, found, diffIDs); img.Ref.Digest != manifest {
		t.Errorf("the digest is %s, want the one that the registry knows, %s", img.Ref.Digest, manifest)
	}
	for typed, want := range map[string]gatehouse.Code{"none:1": gatehouse.CodeNotFound, "mad:1": gatehouse.CodeUnavailable, "sad:1": gatehouse.CodeUnavailable} {
		if _, err := find(t, "docker", typed, o); gatehouse.CodeOf(err) != want || strings.Contains(fmt.Sprint(err), "\x1b") {
			t.Errorf("%s: %v, want %s", typed, err, want)
		}
	}
	o.DockerHost = "tcp://127.0.0.1:2375"
	if _, err := find(t, "docker", storedName, o); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("a daemon on TCP: %v", err)
	}
	if _, err := fetch.LocalStores([]string{"rkt"}, o); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("an unknown source: %v", err)
	}
}

// TestCompressedArchives: docker save | gzip, and a pipe.
func TestCompressedArchives(t *testing.T) {
	file, diffIDs := storedImage(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	zipped := filepath.Join(dir, "image.tar.gz")
	if err := os.WriteFile(zipped, []byte(gz(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if out, err := exec.Command("mkfifo", pipe).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	go os.WriteFile(pipe, b, 0o600)
	temp := filepath.Join(dir, "temp")
	os.Mkdir(temp, 0o700)
	for _, f := range []string{zipped, pipe} {
		open := func(ctx context.Context) (*fetch.Image, error) {
			return fetch.Archive(ctx, f, fetch.ArchiveOptions{TempDir: temp})
		}
		checkStored(t, &fetch.Local{Key: f, Open: open}, diffIDs)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("files are left behind: %v, %v", left, err)
	}
	bomb := filepath.Join(dir, "bomb.tar.gz")
	if err := os.WriteFile(bomb, []byte(gz(strings.Repeat("\x00", 1<<20))[:900]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch.Archive(t.Context(), bomb, fetch.ArchiveOptions{}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a truncated archive: %v", err)
	}
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
