package quickstart

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// image is one of the story's three images: a made-up Alpine 3.16 with a Node
// application. Only the package databases are real in form; nothing in it runs.
type image struct {
	repo gatehouse.Repo
	tag  string
	what string            // in a few words
	apk  map[string]string // OS packages and their versions
	npm  map[string]string // application packages
}

// The packages that the images are made of. What is known to be wrong with some
// of them stands in advisories.go.
var (
	web = image{"production/web", "1.0", "the shop; everything up to date",
		map[string]string{"musl": "1.2.3-r0", "zlib": "1.2.12-r2"}, map[string]string{"lodash": "4.17.21", "minimist": "1.2.5"}}
	worker = image{"production/worker", "1.0", "a helper that somebody forgot to sign",
		map[string]string{"musl": "1.2.3-r0", "zlib": "1.2.12-r2"}, map[string]string{"lodash": "4.17.21"}}
	legacy = image{"production/legacy", "1.0", "signed, but nobody has updated it for years",
		map[string]string{"musl": "1.2.3-r0", "zlib": "1.2.12-r1"}, map[string]string{"lodash": "4.17.4"}}
)

func (i image) String() string { return host + "/" + string(i.repo) + ":" + i.tag }

func (i image) ref() gatehouse.Ref {
	return gatehouse.Ref{Registry: host, Repo: i.repo, Tag: i.tag}
}

// layers builds the base layer and the application layer, each a tar.gz.
func (i image) layers() ([][]byte, []gatehouse.Digest, error) {
	base := []tarFile{
		{"etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.16.0\nPRETTY_NAME=\"Alpine Linux v3.16\"\n"},
		{"lib/apk/db/installed", apkDatabase(i.apk)},
	}
	var app []tarFile
	for _, name := range sorted(i.npm) {
		app = append(app, tarFile{"app/node_modules/" + name + "/package.json", fmt.Sprintf("{\"name\": %q, \"version\": %q}\n", name, i.npm[name])})
	}
	var blobs [][]byte
	var diffIDs []gatehouse.Digest
	for _, files := range [][]tarFile{base, app} {
		plain, err := writeTar(files)
		if err != nil {
			return nil, nil, err
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(plain); err != nil {
			return nil, nil, err
		}
		if err := z.Close(); err != nil {
			return nil, nil, err
		}
		blobs, diffIDs = append(blobs, packed.Bytes()), append(diffIDs, gatehouse.DigestOf(plain))
	}
	return blobs, diffIDs, nil
}

// push uploads the image as any client would and returns its digest.
func (i image) push(ctx context.Context, to *fetch.Registry) (gatehouse.Digest, error) {
	layers, diffIDs, err := i.layers()
	if err != nil {
		return "", err
	}
	config := gatehouse.ImageConfig{Architecture: "amd64", OS: "linux"}
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", diffIDs
	config.Config.User, config.Config.Cmd = "1000", []string{"node", "/app"}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": manifestType}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	var descriptors []gatehouse.Descriptor
	for n, blob := range append([][]byte{raw}, layers...) {
		d, err := to.PutBlob(ctx, i.repo, blob)
		if err != nil {
			return "", err
		}
		d.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		if n == 0 {
			d.MediaType = "application/vnd.oci.image.config.v1+json"
		}
		descriptors = append(descriptors, d)
	}
	manifest["config"], manifest["layers"] = descriptors[0], descriptors[1:]
	body, err := json.Marshal(manifest)
	if err != nil {
		return "", err
	}
	return gatehouse.DigestOf(body), to.PutManifest(ctx, i.repo, i.tag, manifestType, body)
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

type tarFile struct{ name, body string }

func writeTar(files []tarFile) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.body)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// apkDatabase writes /lib/apk/db/installed (P name, V version, A arch, o origin).
func apkDatabase(packages map[string]string) string {
	var b strings.Builder
	for _, name := range sorted(packages) {
		fmt.Fprintf(&b, "P:%s\nV:%s\nA:x86_64\no:%s\nL:Zlib\n\n", name, packages[name], name)
	}
	return b.String()
}
