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
//
// where REPOSITORY is a hash of its name. What is read is verified again, as if it had
// just come: a file that is broken or was changed is no facts. What the feed has said of
// an image since it was asked about is known to this process alone. After a restart
// nobody can vouch for that, so what is read then counts from when it was signed: whoever
// can write here can make facts older, and not younger.
type disk struct {
	dir   string
	files map[name]*file
}

// name is where facts about an image lie: two path elements.
type name struct{ repo, digest string }

// file is one of them.
type file struct {
	used time.Time
	// asked is when the server was asked last, by our clock, and at what it said then
	// about when that was true, by its own. Zero: not since this process began.
	asked, at time.Time
	// changed is when the image may have become another, by the server's clock.
	changed time.Time
}

// outdated reports whether facts of a time are not the last word about the image, or it
// may be another now.
func (f *file) outdated(at time.Time) bool {
	return f == nil || f.at.IsZero() || at.Before(f.at) || !at.After(f.changed)
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
	f.used, f.asked, f.at = now, now, at
	return d.shrink()
}

// mark notes that the images of these changes may have become others.
func (d *disk) mark(changes []Change, at time.Time) {
	repos, digests := map[string]bool{}, map[string]bool{}
	for _, c := range changes {
		repos[nameOf(c.Repository, "").repo] = true
		if c.Digest != "" {
			digests[fileOf(c.Digest)] = true
		}
	}
	for n, f := range d.files {
		if repos[n.repo] || digests[n.digest] {
			f.changed = at
		}
	}
}

// due is what was asked about least recently, before a time; not what was used last
// before another. ok is false where nothing is.
func (d *disk) due(asked, used time.Time, but func(name) bool) (n name, ok bool) {
	for m, f := range d.files {
		if f.asked.Before(asked) && !f.used.Before(used) && !but(m) && (!ok || f.asked.Before(d.files[n].asked)) {
			n, ok = m, true
		}
	}
	return n, ok
}

// usedAt sets when an image was used last, also for after a restart.
func (d *disk) usedAt(n name, at time.Time) {
	if f := d.files[n]; f != nil {
		f.used = at
		_ = os.Chtimes(d.path(n, ".json"), at, at) // it says only what goes first
	}
}

func (d *disk) remove(n name) error {
	delete(d.files, n)
	if err := os.Remove(d.path(n, ".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
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
