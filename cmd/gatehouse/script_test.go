package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/keyref/keyreftest"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// TestMain lets scripts run this test binary as the command gatehouse, and as a
// KMS plugin.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatehouse": main, keyreftest.Program: keyreftest.Main})
}

// TestScripts runs one script per promise; its name says which.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "mkimage": scriptMkimage, "await": scriptAwait, "fetch": scriptFetch, "mode": scriptMode, "push": scriptPush, "settled": scriptSettled, "attached": scriptAttached,
			"signedpolicy": scriptSignedPolicy, "pod": scriptPod, "until": scriptUntil,
			"damage": scriptDamage, "hostof": scriptHostof, "terminate": scriptTerminate, "envsubst": scriptEnvsubst, "login": scriptLogin,
			"publish": scriptPublish, "mkfile": scriptMkfile, "pushtrivy": scriptPushTrivy,
		},
	})
}

// scriptExits runs gatehouse and checks its exit code: exits CODE ARG...
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for i := range args {
		if strings.HasPrefix(args[i], "@/") { // a path in the script's folder
			args[i] = ts.MkAbs(args[i][2:])
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got := run(ctx, args[1:], ts.Getenv, strings.NewReader(""), ts.Stdout(), ts.Stderr())
	if got != want {
		ts.Fatalf("gatehouse %s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// scriptAwait waits for a file and puts its first line into a variable: await
// FILE NAME.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE NAME")
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil {
			ts.Setenv(args[1], strings.TrimSpace(string(b)))
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("waited in vain for %s", args[0])
		}
	}
}

// scriptFetch sends a request and prints the answer: fetch CODE METHOD URL
// [BODYFILE]. Name and password come from the variables USER and PASSWORD.
func scriptFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fetch CODE METHOD URL [BODYFILE]")
	}
	var body io.Reader
	if len(args) > 3 {
		b, err := os.ReadFile(ts.MkAbs(args[3]))
		ts.Check(err)
		body = bytes.NewReader(b)
	}
	res, answer := scriptAsk(ts, args[1], args[2], body)
	fmt.Fprintf(ts.Stdout(), "%s\n%s: %s\n", answer, "WWW-Authenticate", res.Header.Get("WWW-Authenticate"))
	if strconv.Itoa(res.StatusCode) != args[0] {
		ts.Fatalf("%s %s: %d, want %s: %s", args[1], args[2], res.StatusCode, args[0], answer)
	}
}

// scriptPush pushes an archive of mkimage as a registry client would: push FILE
// REFERENCE. The reference may start with http://.
func scriptPush(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: push FILE REFERENCE")
	}
	img, err := tarball.ImageFromPath(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	ref, err := name.ParseReference(strings.TrimPrefix(args[1], "http://"), name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: ts.Getenv("USER"), Password: ts.Getenv("PASSWORD")})))
}

// scriptHostof sets a variable to the host of a URL in another: hostof URL HOST.
func scriptHostof(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[1], strings.TrimPrefix(ts.Getenv(args[0]), "http://"))
}

// scriptSignedPolicy writes a ClusterImagePolicy that asks for a signature by a
// key on every image: signedpolicy FILE PUBLICKEY.
func scriptSignedPolicy(ts *testscript.TestScript, neg bool, args []string) {
	key := ts.ReadFile(args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "**"}]
  authorities: [{key: {data: %q}}]
`, key), 0o600))
}

// scriptPod writes the manifest of a Pod: pod FILE IMAGE.
func scriptPod(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: %q}]}\n", args[1]), 0o600))
}

// scriptUntil asks until the answer holds a text: until URL TEXT.
func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	var answer []byte
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, answer = scriptAsk(ts, http.MethodGet, args[0], nil)
		if strings.Contains(string(answer), args[1]) {
			return
		}
	}
	ts.Fatalf("waited in vain for %q; the last answer was %s", args[1], answer)
}

// scriptSettled waits until a file's identity can be relied on, which it cannot
// within the tick of the clock in which it was written: settled FILE.
func scriptSettled(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if fileIdentity(ts.MkAbs(args[0])) != "" || runtime.GOOS != "linux" {
			return
		}
	}
	ts.Fatalf("%s does not settle", args[0])
}

// scriptAttached waits until a bill of materials hangs on an image, which a
// server makes after the push: attached REFERENCE.
func scriptAttached(ts *testscript.TestScript, neg bool, args []string) {
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	auth := remote.WithAuth(&authn.Basic{Username: ts.Getenv("USER"), Password: ts.Getenv("PASSWORD")})
	d, err := remote.Head(ref, auth)
	ts.Check(err)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		index, err := remote.Referrers(ref.Context().Digest(d.Digest.String()), auth)
		ts.Check(err)
		list, err := index.IndexManifest()
		ts.Check(err)
		if len(list.Manifests) > 1 {
			return
		}
	}
	ts.Fatalf("nothing is attached to %s", args[0])
}

// scriptAsk sends one request with the script's USER and PASSWORD.
func scriptAsk(ts *testscript.TestScript, method, url string, body io.Reader) (*http.Response, []byte) {
	req, err := http.NewRequest(method, url, body)
	ts.Check(err)
	if ts.Getenv("USER") != "" {
		req.SetBasicAuth(ts.Getenv("USER"), ts.Getenv("PASSWORD"))
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	ts.Check(err)
	return res, answer
}

// scriptEnvsubst replaces the variables in a file: envsubst FILE.
func scriptEnvsubst(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

// scriptTerminate sends SIGTERM to what runs in the background, as an init
// system would.
func scriptTerminate(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

// scriptPublish serves a directory as a publisher of advisories does, and puts
// its URL into a variable: publish DIR NAME. Where DIR holds a file named STATUS,
// everything is answered with that status and, behind it, Retry-After. Files have
// ETags; what is asked for is written to DIR.log.
func scriptPublish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: publish DIR NAME")
	}
	dir := ts.MkAbs(args[0])
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(log, r.Method, r.URL.Path, r.Header.Get("If-None-Match"))
		if b, err := os.ReadFile(filepath.Join(dir, "STATUS")); err == nil {
			code, after, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
			status, _ := strconv.Atoi(code)
			w.Header().Set("Retry-After", after)
			w.WriteHeader(status)
			return
		}
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", strconv.Quote(gatehouse.DigestOf(b).Short()))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	ts.Defer(func() {
		s.Close()
		log.Close()
	})
	ts.Setenv(args[1], s.URL)
}

// scriptPushTrivy pushes a small database of Trivy's as the artifact that it is
// published as: pushtrivy REFERENCE.
func scriptPushTrivy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: pushtrivy REFERENCE")
	}
	layer, err := os.ReadFile(filepath.Join(sourceDir, "..", "..", "internal", "feed", "trivydb", "testdata", "fixture.tar.gz"))
	ts.Check(err)
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(layer, update.TypeTrivy))
	ts.Check(err)
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: ts.Getenv("USER"), Password: ts.Getenv("PASSWORD")})))
}

// sourceDir is where this package's tests run, before a script goes elsewhere.
var sourceDir, _ = os.Getwd()

// scriptMkfile writes a file of one OSV record per package, changed today or so
// many days ago: mkfile FILE DAYS ECOSYSTEM ID=PACKAGE...
func scriptMkfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: mkfile FILE DAYS ECOSYSTEM ID=PACKAGE...")
	}
	days, err := strconv.Atoi(args[1])
	ts.Check(err)
	var records []string
	for _, a := range args[3:] {
		id, name, _ := strings.Cut(a, "=")
		records = append(records, fmt.Sprintf(`{"schema_version":"1.6.0","id":%q,"modified":%q,"affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`,
			id, time.Now().AddDate(0, 0, -days).UTC().Format(time.RFC3339), args[2], name))
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	ts.Check(os.WriteFile(path, []byte("["+strings.Join(records, ",\n")+"]"), 0o600))
}

// scriptLogin writes what docker login would: login FILE HOST.
func scriptLogin(ts *testscript.TestScript, neg bool, args []string) {
	doc := fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, args[1], ts.Getenv("USER"), ts.Getenv("PASSWORD"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(doc), 0o600))
}

// scriptDamage damages every stored blob of a data directory: damage DIR flip
// changes a byte, damage DIR delete removes the file.
func scriptDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage DIR flip|delete")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "blobs", "*", "*"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("%s holds no blobs", args[0])
	}
	for _, name := range files {
		if args[1] == "delete" {
			ts.Check(os.Remove(name))
			continue
		}
		b, err := os.ReadFile(name)
		ts.Check(err)
		b[len(b)/2] ^= 1
		ts.Check(os.WriteFile(name, b, 0o600))
	}
}

// scriptMode checks the permissions of a file: mode 0600 FILE.
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// scriptMkimage writes a docker-save archive of an Alpine image: mkimage FILE
// RELEASE PACKAGE=VERSION..., where npm:NAME=VERSION is a Node package,
// file:PATH=TEXT a file and big=N one of N bytes that do not compress. The release "none" makes an image
// without a distribution.
func scriptMkimage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkimage FILE RELEASE PACKAGE=VERSION...")
	}
	files := map[string]string{}
	if args[1] != "none" {
		files["etc/os-release"] = "ID=alpine\nVERSION_ID=" + args[1] + "\n"
	}
	for _, p := range args[2:] {
		name, version, _ := strings.Cut(p, "=")
		if name == "big" {
			n, err := strconv.Atoi(version)
			ts.Check(err)
			big := make([]byte, n)
			rand.NewChaCha8([32]byte{}).Read(big)
			files["big"] = string(big)
			continue
		}
		if path, ok := strings.CutPrefix(name, "file:"); ok {
			files[path] = version
			continue
		}
		if npm, ok := strings.CutPrefix(name, "npm:"); ok {
			files["app/node_modules/"+npm+"/package.json"] = fmt.Sprintf(`{"name":%q,"version":%q}`, npm, version)
			continue
		}
		files["lib/apk/db/installed"] += fmt.Sprintf("P:%s\nV:%s\nA:x86_64\no:%s\n\n", name, version, name)
	}
	layer := writeTar(ts, files)
	cfg := gatehouse.ImageConfig{Architecture: "amd64", OS: "linux"}
	cfg.RootFS.Type, cfg.RootFS.DiffIDs = "layers", []gatehouse.Digest{gatehouse.DigestOf(layer)}
	config, err := json.Marshal(cfg)
	ts.Check(err)
	archive := writeTar(ts, map[string]string{
		"layer.tar": string(layer), "config.json": string(config),
		"manifest.json": `[{"Config":"config.json","RepoTags":["demo:1"],"Layers":["layer.tar"]}]`,
	})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), archive, 0o600))
}

func writeTar(ts *testscript.TestScript, files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		ts.Check(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, body)
		ts.Check(err)
	}
	ts.Check(w.Close())
	return b.Bytes()
}
