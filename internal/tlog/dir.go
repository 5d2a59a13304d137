package tlog

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
)

// Dir is a log as files: any web server can serve the directory.
type Dir string

// Checkpoint implements [Source].
func (d Dir) Checkpoint(context.Context) ([]byte, error) { return d.read("checkpoint", checkpointMax) }

// Tile implements [Source].
func (d Dir) Tile(_ context.Context, t Tile) ([]byte, error) {
	return readTile(t, func(t Tile) ([]byte, error) { return d.read(t.Path(), bundleMax) })
}

func (d Dir) read(name string, most int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no %s in %s", name, string(d)).WithHint("gatehouse sigstore export writes such a directory")
	}
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the log: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the log: %w", err)
	}
	if int64(len(data)) > most {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", name, most)
	}
	return data, nil
}

func (d Dir) write(name string, data []byte) error {
	if err := WriteFile(filepath.Join(string(d), filepath.FromSlash(name)), data); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the log: %w", err)
	}
	return nil
}

// WriteFile writes a file and the directories above it so that it is there whole
// or not at all, also after power is lost.
func WriteFile(name string, data []byte) (err error) {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
