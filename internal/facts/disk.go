package facts

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// On disk are, below one directory:
//
//	state.json              the last page of the feed, as it was signed
//	REPOSITORY/DIGEST.json  what was signed about an image
//	REPOSITORY/DIGEST.old   empty: the feed has said that it may be another now
//
// where REPOSITORY is a hash of its name. What is read is verified again, as if it had
// just come: a file that is broken or was changed is no facts.
type disk struct {
	dir   string
	files map[name]*file
}

// name is where facts about an image lie: two path elements.
type name struct{ repo, digest string }

// file is one of them. old: its image may be another now, since the server's time
// oldAt; zero: since before this process began.
type file struct {
	used  time.Time
	old   bool
	oldAt time.Time
}

// filesMax bounds the images that are kept; past it, those that were asked for least
// recently go. recordMax bounds what is read of one file.
const (
	filesMax  = 20_000
	recordMax = 3 * imageSizeMax
)

// record is the content of an image's file.
type record struct {
	Facts json.RawMessage `json:"facts"`
	// Same is a later word of the server, that these are the facts still.
	Same json.RawMessage `json:"same,omitempty"`
}

// feedState is the content of state.json.
type feedState struct {
	Page json.RawMessage `json:"page"`
	// All is when, by the server's clock, every image may have become another.
	All time.Time `json:"all,omitzero"`
}

func nameOf(repo gatehouse.Repo, digest gatehouse.Digest) name {
	sum := sha256.Sum256([]byte(repo))
	return name{hex.EncodeToString(sum[:16]), fileOf(digest)}
}

func fileOf(digest gatehouse.Digest) string { return digest.Algorithm() + "-" + digest.Hex() }

// openDisk lists what is there, without reading it.
func openDisk(dir string) (*disk, error) {
	d := &disk{dir: dir, files: map[name]*file{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't make the directory of facts: %w", err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n := name{filepath.Base(filepath.Dir(path)), strings.TrimSuffix(e.Name(), filepath.Ext(path))}
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch filepath.Ext(path) {
		case ".tmp": // of a write that did not end
			return os.Remove(path)
		case ".json":
			if filepath.Dir(path) != dir {
				d.at(n).used = info.ModTime()
			}
		case ".old":
			d.at(n).old = true
		}
		return nil
	})
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the directory of facts: %w", err)
	}
	return d, nil
}

func (d *disk) at(n name) *file {
	if d.files[n] == nil {
		d.files[n] = &file{}
	}
	return d.files[n]
}

func (d *disk) path(n name, ext string) string { return filepath.Join(d.dir, n.repo, n.digest+ext) }

func (d *disk) state() (feedState, error) {
	var s feedState
	err := readJSON(filepath.Join(d.dir, "state.json"), 3*pageSizeMax, &s)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return s, err
}

func (d *disk) setState(s feedState) error { return writeJSON(filepath.Join(d.dir, "state.json"), s) }

// read returns what is kept about an image; ok is false where nothing is.
func (d *disk) read(n name) (r record, ok bool, err error) {
	if d.files[n] == nil {
		return r, false, nil
	}
	err = readJSON(d.path(n, ".json"), recordMax, &r)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	return r, err == nil, err
}

// write keeps facts about an image that were true at, by the server's clock.
func (d *disk) write(n name, r record, at, now time.Time) error {
	if err := os.MkdirAll(filepath.Join(d.dir, n.repo), 0o700); err != nil {
		return err
	}
	if err := writeJSON(d.path(n, ".json"), r); err != nil {
		return err
	}
	f := d.at(n)
	f.used = now
	if f.old && !at.After(f.oldAt) {
		return nil // it has changed while the answer was on its way
	}
	if err := os.Remove(d.path(n, ".old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.old = false
	return d.shrink()
}

// mark notes that the images of these changes may have become others, before the
// position of the feed moves on.
func (d *disk) mark(changes []Change, at time.Time) error {
	repos, digests := map[string]bool{}, map[string]bool{}
	for _, c := range changes {
		repos[nameOf(c.Repository, "").repo] = true
		if c.Digest != "" {
			digests[fileOf(c.Digest)] = true
		}
	}
	for n, f := range d.files {
		if !repos[n.repo] && !digests[n.digest] {
			continue
		}
		if !f.old {
			if err := os.WriteFile(d.path(n, ".old"), nil, 0o600); err != nil {
				return err
			}
		}
		f.old, f.oldAt = true, at
	}
	return nil
}

func (d *disk) remove(n name) error {
	delete(d.files, n)
	for _, ext := range []string{".json", ".old"} {
		if err := os.Remove(d.path(n, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// shrink removes a tenth where there are too many, those that were used least recently.
func (d *disk) shrink() error {
	if len(d.files) <= filesMax {
		return nil
	}
	names := make([]name, 0, len(d.files))
	for n := range d.files {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b name) int {
		return cmp.Or(d.files[a].used.Compare(d.files[b].used), cmp.Compare(a.repo, b.repo), cmp.Compare(a.digest, b.digest))
	})
	for _, n := range names[:filesMax/10] {
		if err := d.remove(n); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(path string, max int64, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > max {
		return errors.Join(err, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than what is kept there", filepath.Base(path)))
	}
	return json.NewDecoder(f).Decode(into)
}

// writeJSON replaces a file, whole or not at all.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
