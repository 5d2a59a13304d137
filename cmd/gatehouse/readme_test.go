package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/gatehouse-dev/gatehouse/internal/quickstart"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// consoles returns the ```console blocks of the README.
func consoles(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(b), "```console\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		out = append(out, block)
	}
	if len(out) != 2 {
		t.Fatalf("the README has %d console blocks, want 2", len(out))
	}
	return out
}

// changing is what differs from run to run: ports, paths, digests, ids, times.
var changing = regexp.MustCompile(`127\.0\.0\.1:\d+|/tmp/\S+|\b[0-9a-f]{12,64}\b|\d+ ms`)

func settled(line string) string {
	return strings.Join(strings.Fields(changing.ReplaceAllString(line, "*")), " ")
}

// TestDocumentLinks follows every relative link of the documents.
func TestDocumentLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	links := 0
	for _, file := range append(files, more...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
	if links < 10 {
		t.Errorf("only %d links were followed", links)
	}
}

// TestReadmeTour compares the README's tour with what quickstart prints now:
// every line of it, in order. Lines may be left out.
func TestReadmeTour(t *testing.T) {
	var out strings.Builder
	ok, err := quickstart.Run(t.Context(), quickstart.Options{Once: true, Out: &out, Log: &out})
	if err != nil || !ok {
		t.Fatalf("quickstart: %v, %v\n%s", ok, err, out.String())
	}
	var told []string
	for line := range strings.SplitSeq(out.String(), "\n") {
		told = append(told, settled(line))
	}
	lines := strings.Split(strings.TrimSpace(consoles(t)[0]), "\n")
	if len(lines) < 20 {
		t.Fatalf("the tour has %d lines", len(lines))
	}
	at := 0
next:
	for _, line := range lines[1:] {
		want := settled(line)
		if want == "" {
			continue
		}
		for ; at < len(told); at++ {
			if told[at] == want {
				at++
				continue next
			}
		}
		t.Fatalf("the README tells a line that quickstart does not print (here):\n%s\nquickstart printed:\n%s", line, out.String())
	}
}

// TestReadmeCommands types the README's second block, with real skopeo, in an
// empty directory with the files that it speaks of.
func TestReadmeCommands(t *testing.T) {
	skopeo := tool.Need(t, "skopeo")
	dir := t.TempDir()
	readmeFiles(t, dir)
	env := append(os.Environ(), "HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "XDG_RUNTIME_DIR="+dir, "REGISTRY_AUTH_FILE="+dir+"/auth.json",
		"COSIGN_PASSWORD=", "PATH="+os.Getenv("PATH")+":"+filepath.Dir(skopeo))
	address := ""
	var script strings.Builder // exports go on to the next lines
	commands := 0
	for line := range strings.SplitSeq(consoles(t)[1], "\n") {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		commands++
		if serve, ok := strings.CutSuffix(command, " &"); ok {
			address = readmeServer(t, dir, env, serve)
			continue
		}
		command = strings.ReplaceAll(command, "127.0.0.1:5000", address)
		if strings.HasPrefix(command, "export ") {
			fmt.Fprintln(&script, command)
			continue
		}
		if strings.Contains(command, "policy test") {
			readmePolicy(t, dir, address)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script.String()+command)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("$ %s\n%s\n%v", command, out, err)
		}
	}
	if commands < 8 {
		t.Fatalf("only %d commands", commands)
	}
}

// readmeServer starts the server as the README does, but on free ports, and
// returns its address.
func readmeServer(t *testing.T, dir string, env []string, command string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+command+" --listen 127.0.0.1:0 --admission-listen 127.0.0.1:0 --ready-file ready")
	cmd.Dir, cmd.Env = dir, env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the server said:\n%s", log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, "ready")); err == nil {
			return strings.TrimPrefix(strings.TrimSpace(string(b)), "http://")
		}
	}
	t.Fatalf("the server did not become ready:\n%s", log.String())
	return ""
}

// readmeFiles makes app.tar and the two advisory exports.
func readmeFiles(t *testing.T, dir string) {
	t.Helper()
	layer, err := random.Layer(2000, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"), layer)
	if err != nil {
		t.Fatal(err)
	}
	img = mutate.ConfigMediaType(img, "application/vnd.oci.image.config.v1+json")
	oci := filepath.Join(dir, "layout")
	p, err := layout.Write(oci, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(oci)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	write(t, filepath.Join(dir, "app.tar"), b.Bytes())
	for _, ecosystem := range []string{"Debian", "npm"} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, err := z.Create("X-" + ecosystem + ".json")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, `{"schema_version":"1.6.0","id":"X-%s","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":%q,"name":"a"},"versions":["1"]}]}`, ecosystem, ecosystem)
		z.Close()
		write(t, filepath.Join(dir, ecosystem, "all.zip"), b.Bytes())
	}
}

// readmePolicy asks for the signature that has been made by now.
func readmePolicy(t *testing.T, dir, address string) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "policies", "signed.yaml"), fmt.Appendf(nil, `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "%s/**"}]
  authorities: [{key: {data: %q}}]
`, address, key))
	write(t, filepath.Join(dir, "deployment.yaml"), fmt.Appendf(nil, `apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: "%s/team/app:v1"}]}
`, address))
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
