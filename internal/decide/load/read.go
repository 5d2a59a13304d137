package load

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

// filesMax bounds the files of one set.
const filesMax = 2_000

// Read collects the files at paths, which are files or directories; of a
// directory, its .yaml, .yml, .json and .rego files at any depth, without
// hidden ones and *_test.rego. What cannot be read is a problem. It is the
// only part of decide that touches the disk.
func Read(paths ...string) ([]File, []decide.Problem) {
	r := reader{seen: map[string]bool{}}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			r.problem(path, err)
		case info.IsDir():
			r.walk(path)
		default:
			r.file(path)
		}
	}
	return r.files, r.problems
}

type reader struct {
	seen     map[string]bool
	files    []File
	problems []decide.Problem
}

func (r *reader) problem(path string, err error) {
	message := err.Error()
	if e, ok := err.(*fs.PathError); ok {
		message = e.Err.Error()
	}
	r.problems = append(r.problems, decide.Problem{Path: path, Message: "cannot be read: " + message})
}

func (r *reader) walk(dir string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			r.problem(path, err)
			return nil
		}
		// ..data and its like are how Kubernetes mounts a ConfigMap: the files
		// beside them are links into them.
		if name := d.Name(); path != dir && strings.HasPrefix(name, ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() || !policyFile(path) {
			return nil
		}
		if len(r.files) >= filesMax {
			r.problems = append(r.problems, decide.Problem{Path: dir, Message: fmt.Sprintf("has more than %d files of policies", filesMax)})
			return fs.SkipAll
		}
		r.file(path)
		return nil
	})
	if err != nil {
		r.problem(dir, err)
	}
}

func policyFile(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return slices.Contains([]string{".yaml", ".yml", ".json", ".rego"}, ext) && !rego.IsTest(path)
}

func (r *reader) file(path string) {
	if r.seen[filepath.Clean(path)] {
		return
	}
	r.seen[filepath.Clean(path)] = true
	f, err := os.Open(path)
	if err != nil {
		r.problem(path, err)
		return
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.FileSizeMax+1))
	if err != nil {
		r.problem(path, err)
		return
	}
	// Too large is for Split and Load to say: they know the limit's name.
	r.files = append(r.files, File{Path: path, Data: data})
}
