package update

import (
	"bufio"
	"crypto/md5" // what Google's storage says about its objects: against accidents, not against people
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse"
)

// checkDigests compares a whole file with what its source says about it: the
// digests of Google's storage (x-goog-hash), which OSV.dev is on, and those of
// RFC 9530 (Repr-Digest). Most sources say nothing.
func checkDigests(f *os.File, size int64, h http.Header) error {
	sums := map[string]hash.Hash{}
	want := map[string]string{}
	for _, line := range h.Values("X-Goog-Hash") {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch name {
			case "crc32c":
				sums[name], want[name] = crc32.New(crc32.MakeTable(crc32.Castagnoli)), value
			case "md5":
				sums[name], want[name] = md5.New(), value
			}
		}
	}
	for part := range strings.SplitSeq(h.Get("Repr-Digest"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name == "sha-256" {
			sums[name], want[name] = sha256.New(), strings.Trim(value, ":")
		}
	}
	if len(sums) == 0 {
		return nil
	}
	writers := make([]io.Writer, 0, len(sums))
	for _, s := range sums {
		writers = append(writers, s)
	}
	if _, err := io.Copy(io.MultiWriter(writers...), io.NewSectionReader(f, 0, size)); err != nil {
		return diskFailed(err)
	}
	for name, s := range sums {
		if got := base64.StdEncoding.EncodeToString(s.Sum(nil)); got != want[name] {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the file has been damaged on its way: its %s is not the one that the source names", name)
		}
	}
	return nil
}

// unpackedMax bounds what one file of NVD unpacks to, in bytes.
const unpackedMax = 4 << 30

// nvdMeta is what NVD publishes beside each file: the sha256 of the JSON in it.
func nvdMeta(b []byte) (sum string, ok bool) {
	for line := range strings.Lines(string(b)) {
		if s, found := strings.CutPrefix(strings.TrimSpace(line), "sha256:"); found {
			s = strings.ToLower(s)
			raw, err := hex.DecodeString(s)
			return s, err == nil && len(raw) == sha256.Size
		}
	}
	return "", false
}

// checkUnpacked compares the JSON in a gzip file with its sha256.
func checkUnpacked(f *os.File, sum string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return diskFailed(err)
	}
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the file is no gzip: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(z, unpackedMax+1))
	switch {
	case err != nil:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the file is damaged: %w", err)
	case n > unpackedMax:
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the file unpacks to more than %d bytes", int64(unpackedMax))
	case hex.EncodeToString(h.Sum(nil)) != sum:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the file is not the one that its .meta speaks of")
	}
	return nil
}
