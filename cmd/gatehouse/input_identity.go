package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// inputFilesMax bounds the files of a layout whose identities are asked for; a
// larger one is read each time.
const inputFilesMax = 5000

// inputIdentity is [fileIdentity] of what --input names: of a file, or of every
// file of an OCI image layout (image-layout.md). "" = it has none.
func inputIdentity(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return fileIdentity(path)
	}
	files := []string{"index.json", "oci-layout"}
	algorithms, err := os.ReadDir(filepath.Join(path, "blobs"))
	if err != nil {
		return ""
	}
	for _, algorithm := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(path, "blobs", algorithm.Name()))
		if err != nil || len(files)+len(blobs) > inputFilesMax {
			return ""
		}
		for _, b := range blobs {
			files = append(files, filepath.Join("blobs", algorithm.Name(), b.Name()))
		}
	}
	slices.Sort(files)
	all := make([]string, len(files))
	for i, f := range files {
		if all[i] = fileIdentity(filepath.Join(path, f)); all[i] == "" {
			return ""
		}
	}
	return string(gatehouse.DigestOf([]byte(strings.Join(all, "\n"))))
}
