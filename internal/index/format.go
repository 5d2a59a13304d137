package index

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
)

// decompressor looks at the first bytes. RFC 1952 (gzip, any number of
// members), RFC 8878 (zstd, any number of frames), POSIX ustar and older tar.
func (s *stream) decompressor(in *bufio.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, nil, s.streamError(err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, s.streamError(err)
		}
		return z, nothing, nil
	case isZstd(head):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(s.limits.WindowMax)))
		if err != nil {
			return nil, nil, s.streamError(err)
		}
		return z, z.Close, nil
	case isTar(head):
		s.isPlain = true
		return in, nothing, nil
	}
	return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "layer is not gzip, zstd or tar")
}

// isZstd knows frames and skippable frames (RFC 8878 section 3.1).
func isZstd(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte{0x2a, 0x4d, 0x18})
}

// isTar knows the POSIX and GNU magic, the header checksum of older archives,
// and the block of zeros that an empty archive is.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	if string(head[257:262]) == "ustar" || bytes.Equal(head, make([]byte, 512)) {
		return true
	}
	var sum, want int64
	for i, b := range head {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(b)
	}
	for _, b := range bytes.Trim(head[148:156], " \x00") {
		if b < '0' || b > '7' {
			return false
		}
		want = want*8 + int64(b-'0')
	}
	return sum == want
}

// streamError tells a bad layer from a blob that could not be read.
func (s *stream) streamError(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "layer is truncated: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "layer needs more memory to inflate than is allowed: %w", err)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "layer is corrupt: %w", err)
}
