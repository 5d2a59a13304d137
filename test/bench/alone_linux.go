package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// outputAlone runs a program, and whatever it starts, in a network namespace that has
// nothing but loopback: what listens on all interfaces is heard by nobody else. It
// takes root.
func outputAlone(cmd *exec.Cmd) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not given back: it ends with this goroutine, and the namespace
		// with the last process in it.
		runtime.LockOSThread()
		if err = syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("making a network namespace: %w", err)
			return
		}
		if err = loopbackUp(); err == nil {
			out, err = cmd.CombinedOutput() // it is forked from this thread
		}
	}()
	<-done
	return out, err
}

// loopbackUp starts the only interface of a new namespace (netdevice(7)).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte // the rest of struct ifreq
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("starting loopback: %w", errno)
	}
	return nil
}
