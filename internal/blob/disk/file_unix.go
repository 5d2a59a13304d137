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

// openFile is os.Open for a regular file. That one offers every file to the
// poller, which refuses regular ones: five calls of the operating system more
// for each blob that is pulled.
func openFile(path string) (*os.File, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case syscall.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}
