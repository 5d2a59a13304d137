// Package unpack opens the wrappings that feeds come in, zip and gzip, as what
// hostile files they may be: nothing is unpacked to disk by itself, and the
// caller says how much may come out.
package unpack

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// IsZip and IsGzip look at the first bytes of a file.
func IsZip(head []byte) bool {
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06"))
}

// IsGzip: see [IsZip].
func IsGzip(head []byte) bool { return bytes.HasPrefix(head, []byte("\x1f\x8b\x08")) }

// Zip opens a zip whose directory is at most directoryMax bytes long.
// Errors: CodeInvalid, CodeTooLarge.
func Zip(r io.ReaderAt, size, directoryMax int64) (*zip.Reader, error) {
	if err := checkDirectory(r, size, directoryMax); err != nil {
		return nil, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no whole zip: %w", err)
	}
	return z, nil
}

// Gunzip reads what a gzip holds, at most bytesMax bytes of it.
// Errors while opening and reading: CodeInvalid, CodeTooLarge.
func Gunzip(r io.Reader, bytesMax int64) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no whole gzip: %w", err)
	}
	return Bounded(z, bytesMax), nil
}

// Bounded ends with CodeTooLarge after bytesMax bytes, and with CodeInvalid
// where the compressed bytes are damaged or cut short.
func Bounded(r io.Reader, bytesMax int64) io.Reader { return &bounded{r, bytesMax, bytesMax} }

type bounded struct {
	r         io.Reader
	left, max int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// At the very end of its allowance a file may still be whole.
		var one [1]byte
		if n, err := b.r.Read(one[:]); n == 0 && err != nil {
			return 0, damaged(err)
		}
		return 0, gatehouse.Errorf(gatehouse.CodeTooLarge, "it unpacks to more than %d bytes", b.max)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, damaged(err)
}

func damaged(err error) error {
	var known *gatehouse.Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &known) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "its compressed bytes are damaged or cut short: %w", err).
		WithHint("the file was probably cut short; fetch it again")
}

// Of a zip's end record, of the comment behind it, and of the zip64 locator and
// record before it.
const endLength, commentMax, locatorLength, longLength = 22, 1 << 16, 20, 56

// checkDirectory bounds a zip's directory before archive/zip builds it in
// memory: it counts the bytes, because the number of entries in the end record
// is a claim that archive/zip checks only afterwards and modulo 65536
// (APPNOTE.TXT 4.3.16, 4.3.14).
func checkDirectory(r io.ReaderAt, size int64, directoryMax int64) error {
	tail := make([]byte, min(size, locatorLength+endLength+commentMax))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the zip cannot be read: %w", err)
	}
	i := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if i < 0 || len(tail)-i < endLength {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "this is no whole zip: its directory is missing").
			WithHint("the file was probably cut short; fetch it again")
	}
	length := int64(binary.LittleEndian.Uint32(tail[i+12:]))
	offset := int64(binary.LittleEndian.Uint32(tail[i+16:]))
	const unknown = 1<<32 - 1
	// archive/zip believes the zip64 record in several cases, also where the short
	// one has both numbers: where there is one, both must be in order.
	at := i - locatorLength
	long := at >= 0 && string(tail[at:at+4]) == "PK\x06\x07"
	if !long && (offset == unknown || length == unknown) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "this is no whole zip: its zip64 directory is missing")
	}
	if offset != unknown && length != unknown {
		if err := directoryFits(length, size-offset, directoryMax); err != nil {
			return err
		}
	}
	if !long {
		return nil
	}
	end := make([]byte, longLength)
	if _, err := r.ReadAt(end, int64(binary.LittleEndian.Uint64(tail[at+8:])&(1<<62-1))); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "this is no whole zip: %w", err)
	}
	length = int64(binary.LittleEndian.Uint64(end[40:]) & (1<<62 - 1))
	offset = int64(binary.LittleEndian.Uint64(end[48:]) & (1<<62 - 1))
	return directoryFits(length, size-offset, directoryMax)
}

// directoryFits compares the length of a directory, and the room from its begin to
// the end of the file: archive/zip reads entries for as long as they look like
// entries.
func directoryFits(length, room, directoryMax int64) error {
	if length > directoryMax || room > directoryMax+longLength+locatorLength+endLength+commentMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the zip's directory is larger than %d bytes", directoryMax)
	}
	return nil
}
