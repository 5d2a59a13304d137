//go:build unix && !solaris && !aix

package disk

import (
	"os"
	"syscall"
)

// lock takes the file for this writer alone, until it is closed or the process
// ends. It reports whether it got it.
func lock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
