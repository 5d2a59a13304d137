package fetch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// podman reads the store of Podman, Buildah and CRI-O (containers/storage) from
// its directory: no service has to run. It takes no lock and changes nothing;
// what another program changes meanwhile fails the digest.
type podman struct{ roots []string }

// graphDrivers keep the files of a layer in plain directories.
var graphDrivers = []string{"overlay", "vfs"}

const storeFileMax = 256 << 20 // bytes of images.json and layers.json

// The entries of images.json and layers.json that are read here.
type (
	storedImage struct {
		ID     string   `json:"id"`
		Names  []string `json:"names"`
		Digest string   `json:"digest"`
		Layer  string   `json:"layer"`
	}
	storedLayer struct {
		ID         string           `json:"id"`
		Parent     string           `json:"parent"`
		DiffDigest gatehouse.Digest `json:"diff-digest"`
		DiffSize   *int64           `json:"diff-size"`
	}
)

func (o LocalOptions) podmanRoots() []string {
	if o.PodmanRoot != "" {
		return []string{o.PodmanRoot}
	}
	var roots []string
	add := func(parts ...string) {
		if parts[0] != "" {
			roots = append(roots, filepath.Join(parts...))
		}
	}
	home := o.Getenv("HOME")
	for _, conf := range []string{o.Getenv("CONTAINERS_STORAGE_CONF"), filepath.Join(home, ".config/containers/storage.conf"), "/etc/containers/storage.conf"} {
		add(graphRoot(conf))
	}
	if dir := o.Getenv("XDG_DATA_HOME"); dir != "" {
		add(dir, "containers", "storage")
	} else if home != "" {
		add(home, ".local", "share", "containers", "storage")
	}
	add("/var/lib/containers/storage")
	slices.Sort(roots[min(1, len(roots)):])
	return slices.Compact(roots)
}

// graphRoot is graphroot of the table [storage] in a storage.conf, "" if the
// file says none. It is TOML, of which this one line matters.
func graphRoot(conf string) string {
	if conf == "" {
		return ""
	}
	b, err := os.ReadFile(conf)
	if err != nil {
		return ""
	}
	table := ""
	for text := range strings.Lines(string(b)) {
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "[") {
			table = text
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if ok && table == "[storage]" && strings.TrimSpace(key) == "graphroot" {
			value, _, _ = strings.Cut(strings.TrimSpace(value), "#")
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}

func (p *podman) Name() string { return "podman" }

func (p *podman) Find(_ context.Context, name string, ref gatehouse.Ref, platform Platform) (*Local, error) {
	var unreadable error
	for _, root := range p.roots {
		for _, driver := range graphDrivers {
			s := &containersStorage{root: root, driver: driver}
			var images []storedImage
			err := s.list("images", &images)
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0: // root's store is not a user's
				continue
			case err != nil:
				unreadable = gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's store at %s cannot be read: %w", root, err)
				continue
			}
			img, ok := chooseStored(images, name, ref)
			if !ok {
				continue
			}
			s.image = img
			return &Local{Store: p.Name(), Key: img.ID + " " + img.Digest, Open: func(ctx context.Context) (*Image, error) {
				return s.open(ctx, name, platform)
			}}, nil
		}
	}
	if unreadable != nil {
		return nil, unreadable
	}
	return nil, notHere("podman", name)
}

// idLengthMin is how much of an image id must be typed, in hex digits.
const idLengthMin = 12

func chooseStored(images []storedImage, name string, ref gatehouse.Ref) (storedImage, bool) {
	wanted := []string{name}
	if ref.Repo != "" {
		tagged := ref
		tagged.Digest = ""
		wanted = append(wanted, tagged.String())
		if !strings.Contains(name, "/") { // podman's own builds
			wanted = append(wanted, "localhost/"+strings.TrimPrefix(string(ref.Repo), "library/")+":"+ref.Tag)
		}
	}
	hex := strings.TrimPrefix(name, "sha256:")
	for _, img := range images {
		if len(hex) >= idLengthMin && strings.Trim(hex, "0123456789abcdef") == "" && strings.HasPrefix(img.ID, hex) {
			return img, true
		}
		for _, n := range img.Names {
			byDigest := ref.Digest != "" && img.Digest == string(ref.Digest) && sameRepo(n, ref)
			if byDigest || ref.Digest == "" && slices.Contains(wanted, n) {
				return img, true
			}
		}
	}
	return storedImage{}, false
}

func sameRepo(name string, ref gatehouse.Ref) bool {
	r, err := gatehouse.ParseRef(name)
	return err == nil && r.Name() == ref.Name()
}

// containersStorage is one image in the directory of one driver.
type containersStorage struct {
	root, driver string
	image        storedImage
}

// list reads images.json or layers.json.
func (s *containersStorage) list(what string, into any) error {
	f, err := os.Open(filepath.Join(s.root, s.driver+"-"+what, what+".json"))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, storeFileMax+1))
	if err != nil {
		return err
	}
	if len(b) > storeFileMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", f.Name(), storeFileMax)
	}
	return json.Unmarshal(b, into)
}

// bigData reads one of the documents that are kept with an image.
func (s *containersStorage) bigData(key string, max int64) ([]byte, error) {
	dir, err := os.OpenRoot(filepath.Join(s.root, s.driver+"-images", filepath.Base(s.image.ID)))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readPart(dirFiles{dir}, bigDataName(key), max)
}

// bigDataName is containers/storage's name for the file of a key: keys that are
// no plain file names are encoded.
func bigDataName(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}

// manifest implements store.
func (s *containersStorage) manifest(_ context.Context, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	for _, key := range []string{"manifest-" + string(digest), "manifest"} {
		b, err := s.bigData(key, gatehouse.ManifestSizeMax)
		if err == nil && digest.Matches(b) {
			m, _, err := parseManifest(b, "", digest)
			return m, err
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "manifest %s is not in the store", digest)
}

// blob implements store; only the configuration is asked for.
func (s *containersStorage) blob(_ context.Context, d gatehouse.Descriptor) (io.ReadCloser, error) {
	b, err := s.bigData(string(d.Digest), configSizeMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "blob %s is not in the store", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(b)), err
}

func (s *containersStorage) open(ctx context.Context, name string, p Platform) (*Image, error) {
	b, err := s.bigData("manifest", gatehouse.ManifestSizeMax)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's store has no manifest of %s: %w", clip(name), err)
	}
	m, _, err := parseManifest(b, "", gatehouse.DigestOf(b))
	if err != nil {
		return nil, err
	}
	img, err := newChooser(s, p).image(ctx, m)
	if err != nil {
		return nil, err
	}
	img.Name = name
	img.Layers, err = s.layers()
	return img, err
}

// layers lists the image's layers, lowest first. What is kept is the content
// of each, without the compression that its manifest speaks of: digest and size
// are those of the tar.
func (s *containersStorage) layers() ([]Layer, error) {
	var all []storedLayer
	if err := s.list("layers", &all); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's list of layers cannot be read: %w", err)
	}
	byID := make(map[string]storedLayer, len(all))
	for _, l := range all {
		byID[l.ID] = l
	}
	var out []Layer
	for id := s.image.Layer; id != ""; {
		l, ok := byID[id]
		switch {
		case !ok:
			return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's store lacks layer %s", clip(id))
		case len(out) >= layersMax:
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has more than %d layers", layersMax)
		}
		if _, err := gatehouse.ParseDigest(string(l.DiffDigest)); err != nil {
			return nil, err
		}
		size := int64(-1)
		if l.DiffSize != nil {
			size = *l.DiffSize
		}
		d := gatehouse.Descriptor{MediaType: typeOCILayer, Digest: l.DiffDigest, Size: size}
		out = append(out, Layer{Descriptor: d, DiffID: l.DiffDigest, Open: func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := s.rebuild(ctx, l.ID)
			if err != nil {
				return nil, err
			}
			return newVerified(rc, d.Digest, d.Size), nil
		}})
		id = l.Parent
	}
	slices.Reverse(out)
	return out, nil
}

// diff is the directory with the files of one layer.
func (s *containersStorage) diff(id string) string {
	if s.driver == "vfs" {
		return filepath.Join(s.root, "vfs", "dir", filepath.Base(id))
	}
	return filepath.Join(s.root, s.driver, filepath.Base(id), "diff")
}

// rebuild gives the very tar that the layer was made of.
func (s *containersStorage) rebuild(ctx context.Context, id string) (io.ReadCloser, error) {
	split, err := os.Open(filepath.Join(s.root, s.driver+"-layers", filepath.Base(id)+".tar-split.gz"))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's store cannot give layer %s back: %w", clip(id), err).
			WithHint("save it: podman save IMAGE -o image.tar, then gatehouse scan --input image.tar")
	}
	root, err := os.OpenRoot(s.diff(id))
	if err != nil {
		split.Close()
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "podman's store cannot give layer %s back: %w", clip(id), err)
	}
	return newTarSplit(ctx, split, root)
}
