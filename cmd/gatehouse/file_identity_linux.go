package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// settleTime is how long a file must have been left alone: two changes within
// one tick of a file system's clock look like one. Those that keep whole seconds
// tick every two.
const (
	settleTime      = 100 * time.Millisecond
	settleTimeWhole = 3 * time.Second
)

// fileIdentity names the content of a regular file without reading it: the file
// itself, its size, and when it and its inode were last changed. The latter only
// the system sets, so that a file that was replaced or written has another
// identity. "" = it has none, or has just been written.
func fileIdentity(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	abs, err := filepath.Abs(path)
	if !ok || err != nil {
		return ""
	}
	changed, settle := time.Unix(st.Ctim.Unix()), settleTime
	if changed.Nanosecond() == 0 {
		settle = settleTimeWhole
	}
	if since := time.Since(changed); since < settle {
		return ""
	}
	return fmt.Sprintf("%s %d:%d %d %d %d", abs, st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano(), changed.UnixNano())
}
