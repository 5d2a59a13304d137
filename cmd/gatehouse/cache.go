package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
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

// layerCache keeps what layers hold, by the verified digest of their bytes and
// the version of the indexer. It is a convenience: whatever goes wrong with it
// means to look again.
type layerCache struct{ dir string }

func (a *app) layerCache(indexer string) layerCache {
	dir, err := a.cacheDir()
	if err != nil {
		return layerCache{}
	}
	return layerCache{filepath.Join(dir, "layers", gatehouse.DigestOf([]byte(indexer)).Short())}
}

func (c layerCache) path(d gatehouse.Digest) string {
	return filepath.Join(c.dir, d.Algorithm()+"-"+d.Hex()+".json")
}

func (c layerCache) get(d gatehouse.Digest) (inv gatehouse.LayerInventory, ok bool) {
	if c.dir == "" {
		return inv, false
	}
	b, err := os.ReadFile(c.path(d))
	if err != nil || json.Unmarshal(b, &inv) != nil {
		return gatehouse.LayerInventory{}, false
	}
	return inv, inv.Blob == d
}

func (c layerCache) put(inv gatehouse.LayerInventory) {
	if c.dir == "" || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	b, err := json.Marshal(inv)
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(c.dir, "put-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(b)
	if tmp.Close() != nil || err != nil || os.Rename(tmp.Name(), c.path(inv.Blob)) != nil {
		os.Remove(tmp.Name())
	}
}
