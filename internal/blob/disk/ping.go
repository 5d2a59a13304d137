package disk

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Ping tells whether the directory is there: a volume may have been unmounted
// below a server that runs. A full one answers, since it can still be read.
func (s *Store) Ping(context.Context) error {
	for _, sub := range []string{"blobs", "uploads"} {
		path := filepath.Join(s.dir, sub)
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			err = &os.PathError{Op: "stat", Path: path, Err: syscall.ENOTDIR}
		}
		if err != nil {
			return blob.Unavailable(err)
		}
	}
	return nil
}
