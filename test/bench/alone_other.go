//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

// outputAlone needs Linux.
func outputAlone(*exec.Cmd) ([]byte, error) {
	return nil, errors.New("network namespaces are Linux's")
}
