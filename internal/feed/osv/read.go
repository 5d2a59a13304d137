package osv

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

// Limits bound what one import may cost. A field that is zero allows nothing.
type Limits struct {
	Records        int   // in one file
	RecordBytes    int64 // of one record, uncompressed
	TotalBytes     int64 // of all records of one file, uncompressed
	DirectoryBytes int64 // of a zip's list of contents
}

// DefaultLimits are some ten times what OSV.dev's largest archive holds.
func DefaultLimits() Limits {
	return Limits{Records: 2_000_000, RecordBytes: 16 << 20, TotalBytes: 32 << 30, DirectoryBytes: 128 << 20}
}

// Records is a stream of advisories that ends at its first error.
type Records = iter.Seq2[gatehouse.Advisory, error]

// Read reads a file of any of the forms that this package knows: a zip, one
// JSON record, or a JSON array of records. Name is for error messages only.
func Read(ctx context.Context, name string, r io.ReaderAt, size int64, limits Limits) Records {
	head := make([]byte, 512)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return failed(gatehouse.Errorf(gatehouse.CodeUnavailable, "%s: %w", name, err))
	}
	head = bytes.TrimLeft(bytes.TrimPrefix(head[:n], []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return unpack.Named(name, ReadZip(ctx, r, size, limits))
	case bytes.HasPrefix(head, []byte("{")) || bytes.HasPrefix(head, []byte("[")):
		return unpack.Named(name, ReadJSON(ctx, io.NewSectionReader(r, 0, size), limits))
	}
	return failed(gatehouse.Errorf(gatehouse.CodeInvalid, "%s is neither a zip nor JSON", name).
		WithHint("import OSV records: a zip as OSV.dev publishes them, one .json record, or an array of records"))
}

// ReadZip reads every *.json of a zip, in the order of its directory. The bytes
// are hostile until proven otherwise: nothing is unpacked to disk, and each
// record, their number and their sum are bounded.
// Errors: CodeInvalid and CodeTooLarge name the file inside the zip.
func ReadZip(ctx context.Context, r io.ReaderAt, size int64, limits Limits) Records {
	return func(yield func(gatehouse.Advisory, error) bool) {
		z, err := unpack.Zip(r, size, limits.DirectoryBytes)
		if err != nil {
			yield(gatehouse.Advisory{}, err)
			return
		}
		records, total := 0, int64(0)
		for _, f := range z.File {
			if !strings.EqualFold(path.Ext(f.Name), ".json") || f.FileInfo().IsDir() {
				continue
			}
			a, n, err := readEntry(ctx, f, limits)
			records, total = records+1, total+n
			switch {
			case err != nil:
			case records > limits.Records:
				err = gatehouse.Errorf(gatehouse.CodeTooLarge, "the zip holds more than %d records", limits.Records)
			case total > limits.TotalBytes:
				err = gatehouse.Errorf(gatehouse.CodeTooLarge, "the zip unpacks to more than %d bytes", limits.TotalBytes)
			}
			if err != nil {
				yield(gatehouse.Advisory{}, err)
				return
			}
			if !yield(a, nil) {
				return
			}
		}
		if records == 0 {
			yield(gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the zip holds no .json record"))
		}
	}
}

func readEntry(ctx context.Context, f *zip.File, limits Limits) (gatehouse.Advisory, int64, error) {
	if err := ctx.Err(); err != nil {
		return gatehouse.Advisory{}, 0, err
	}
	name := field.Clip(f.Name)
	tooLarge := gatehouse.Errorf(gatehouse.CodeTooLarge, "%q is larger than the %d bytes that one record may have", name, limits.RecordBytes)
	if f.UncompressedSize64 > uint64(limits.RecordBytes) {
		return gatehouse.Advisory{}, 0, tooLarge
	}
	rc, err := f.Open()
	if err != nil {
		return gatehouse.Advisory{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot be unpacked: %w", name, err)
	}
	defer rc.Close()
	// The size in the directory is the author's claim; the limit is ours.
	b, err := io.ReadAll(io.LimitReader(rc, limits.RecordBytes+1))
	if err != nil {
		return gatehouse.Advisory{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot be unpacked: %w", name, err)
	}
	if int64(len(b)) > limits.RecordBytes {
		return gatehouse.Advisory{}, 0, tooLarge
	}
	a, err := Parse(b)
	if err != nil {
		return gatehouse.Advisory{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%q: %w", name, err)
	}
	return a, int64(len(b)), nil
}

// ReadJSON reads one record or an array of records as a stream.
func ReadJSON(ctx context.Context, r io.Reader, limits Limits) Records {
	return func(yield func(gatehouse.Advisory, error) bool) {
		b := bufio.NewReaderSize(r, 64<<10)
		unpack.SkipBOM(b)
		ration := unpack.NewRation(b, limits.TotalBytes, limits.RecordBytes)
		d := json.NewDecoder(ration)
		array, err := opensArray(b)
		if err != nil {
			yield(gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no JSON: %w", err))
			return
		}
		if array {
			if _, err := d.Token(); err != nil {
				yield(gatehouse.Advisory{}, jsonError(0, err))
				return
			}
		}
		records := 0
		for d.More() {
			a, err := decodeOne(ctx, d, ration, records, limits)
			if err != nil {
				yield(gatehouse.Advisory{}, err)
				return
			}
			if records++; !yield(a, nil) {
				return
			}
			if !array {
				break
			}
		}
		if err := finish(d, array, records); err != nil {
			yield(gatehouse.Advisory{}, err)
		}
	}
}

func decodeOne(ctx context.Context, d *json.Decoder, ration *unpack.Ration, n int, limits Limits) (gatehouse.Advisory, error) {
	if err := ctx.Err(); err != nil {
		return gatehouse.Advisory{}, err
	}
	if n >= limits.Records {
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the file holds more than %d records", limits.Records)
	}
	ration.Renew()
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return gatehouse.Advisory{}, jsonError(n, err)
	}
	a, err := Parse(raw)
	if err != nil {
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "record number %d: %w", n+1, err)
	}
	return a, nil
}

// finish makes sure that the file ends where it should: an array cut short must
// not pass for a whole one.
func finish(d *json.Decoder, array bool, records int) error {
	if array {
		if t, err := d.Token(); err != nil || t != json.Delim(']') {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the array of records is cut short after record number %d", records)
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "something follows after the last record").
			WithHint("several records go into one JSON array or a zip")
	}
	if records == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the file holds no record")
	}
	return nil
}

func jsonError(n int, err error) error {
	var known *gatehouse.Error
	if errors.As(err, &known) {
		return gatehouse.Errorf(known.Code, "record number %d: %w", n+1, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the file is cut short in record number %d", n+1)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "record number %d is no JSON: %w", n+1, err)
}

// opensArray looks past blanks at the first character.
func opensArray(r *bufio.Reader) (bool, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return false, err
		}
		if strings.IndexByte(" \t\r\n", b) < 0 {
			return b == '[', r.UnreadByte()
		}
	}
}

func failed(err error) Records {
	return func(yield func(gatehouse.Advisory, error) bool) { yield(gatehouse.Advisory{}, err) }
}
