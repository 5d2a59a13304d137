package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// cacheDir is $XDG_CACHE_HOME/gatehouse, the only place that commands without
// a server write to unless a flag names one.
func (a *app) cacheDir() (string, error) {
	if dir := a.getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "gatehouse"), nil
	}
	home := a.getenv("HOME")
	if home == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "neither XDG_CACHE_HOME nor HOME is set").WithHint("name the advisory file with --db")
	}
	return filepath.Join(home, ".cache", "gatehouse"), nil
}

// How many layers and images are kept.
const (
	layersKept = 5000
	imagesKept = 1000
	// versionsKept is for how many versions of what made them: flags that skip
	// files are versions, too.
	versionsKept = 8
)

// folder is a directory of JSON documents of one version of what made them. It
// is a convenience: whatever goes wrong with it means to look again.
type folder struct {
	dir  string // "" = there is none
	kept int
}

// folder opens the directory of a kind ("layers") for documents of a version.
func (a *app) folder(named, kind, version string, kept int) folder {
	dir, err := named, error(nil)
	if dir == "" {
		if dir, err = a.cacheDir(); err != nil {
			return folder{}
		}
	}
	return folder{filepath.Join(dir, kind, gatehouse.DigestOf([]byte(version)).Short()), kept}
}

func (f folder) get(name string, into any) bool {
	if f.dir == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	return err == nil && json.Unmarshal(b, into) == nil
}

func (f folder) put(name string, doc any) {
	if f.dir == "" || !f.ready() {
		return
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(f.dir, "put-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(b)
	if tmp.Close() != nil || err != nil || os.Rename(tmp.Name(), filepath.Join(f.dir, name)) != nil {
		os.Remove(tmp.Name())
	}
}

// ready makes the directory. A new one replaces the oldest of other versions:
// most of what they know is never asked for again. One that is full loses its
// older half.
func (f folder) ready() bool {
	entries, err := os.ReadDir(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if others, err := os.ReadDir(filepath.Dir(f.dir)); err == nil && len(others) >= versionsKept {
			for _, name := range oldest(others, len(others)-versionsKept+1) {
				os.RemoveAll(filepath.Join(filepath.Dir(f.dir), name))
			}
		}
		return os.MkdirAll(f.dir, 0o700) == nil
	case err != nil:
		return false
	}
	if len(entries) >= f.kept {
		for _, name := range oldest(entries, len(entries)/2) {
			os.Remove(filepath.Join(f.dir, name))
		}
	}
	return true
}

// oldest names the n entries that were changed longest ago.
func oldest(entries []fs.DirEntry, n int) (names []string) {
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos[:min(n, len(infos))] {
		names = append(names, info.Name())
	}
	return names
}

// layerCache keeps what layers hold, by the verified digest of their bytes and
// the version of the indexer.
type layerCache struct{ folder }

func (a *app) layerCache(dir, indexer string) layerCache {
	return layerCache{a.folder(dir, "layers", indexer, layersKept)}
}

func (layerCache) name(d gatehouse.Digest) string { return d.Algorithm() + "-" + d.Hex() + ".json" }

func (c layerCache) get(d gatehouse.Digest) (inv gatehouse.LayerInventory, ok bool) {
	if _, err := gatehouse.ParseDigest(string(d)); err != nil || !c.folder.get(c.name(d), &inv) {
		return gatehouse.LayerInventory{}, false
	}
	return inv, inv.Blob == d
}

func (c layerCache) put(inv gatehouse.LayerInventory) { c.folder.put(c.name(inv.Blob), inv) }

// imageCache keeps what images hold, by whatever names their bytes. Other than
// a layer an image is composed, so the program itself is part of its version.
type imageCache struct{ folder }

type cachedImage struct {
	Key       string
	Target    report.Target
	Inventory gatehouse.Inventory
	Created   time.Time // as the image's author says
}

func (a *app) imageCache(dir, indexer string) imageCache {
	program := a.version()
	if exe, err := os.Executable(); err == nil {
		program += " " + fileIdentity(exe)
	}
	return imageCache{a.folder(dir, "images", program+" "+indexer, imagesKept)}
}

func (imageCache) name(key string) string { return gatehouse.DigestOf([]byte(key)).Hex() + ".json" }

func (c imageCache) get(key string) (hit cachedImage, ok bool) {
	ok = c.folder.get(c.name(key), &hit) && hit.Key == key
	return hit, ok
}

func (c imageCache) put(key string, img cachedImage) {
	img.Key = key
	c.folder.put(c.name(key), img)
}

// clearCache forgets layers and images. Advisories stay.
func (a *app) clearCache(dir string) error {
	own, err := a.cacheDir()
	if dir == "" && err != nil {
		return err
	}
	for _, kind := range []string{"layers", "images", "digests"} {
		if err := os.RemoveAll(filepath.Join(cmp.Or(dir, own), kind)); err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't clear the cache: %w", err)
		}
	}
	return nil
}
