//go:build unix

package server

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/gatehouse-dev/gatehouse"
)

// lockDir makes sure that one process has the data directory: SQLite would
// survive two, the upload sessions and caches would not.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't use the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, gatehouse.Errorf(gatehouse.CodeConflict, "another server has the data directory %s", dir).
			WithHint("stop it, or choose another directory with --data")
	}
	return f.Close, nil
}
