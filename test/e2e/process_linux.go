package e2e

import "syscall"

// sysProcAttr puts the child into a group of its own, so that an interrupt at
// the terminal reaches it through its test only, and ends it when the test
// binary dies without a cleanup (a panic, a timeout).
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
