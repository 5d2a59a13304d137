package unpack

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// JSON reads a document piece by piece, so that a list of any length fits into
// the memory of its longest element. Methods' errors are CodeInvalid for what is
// malformed or cut short and CodeTooLarge, or those of the functions handed in.
type JSON struct {
	d *json.Decoder
	r *Ration
}

// NewJSON reads at most totalMax bytes, of which no piece may take more than
// about pieceMax.
func NewJSON(r io.Reader, totalMax, pieceMax int64) *JSON {
	b := bufio.NewReaderSize(r, 64<<10)
	SkipBOM(b)
	ration := NewRation(b, totalMax, pieceMax)
	return &JSON{d: json.NewDecoder(ration), r: ration}
}

// Object reads the whole document, which is one object: f reads the value of
// each key with one of the other methods.
func (j *JSON) Object(f func(key string) error) error {
	if err := j.delim('{'); err != nil {
		return err
	}
	for j.d.More() {
		t, err := j.token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if err := f(key); err != nil {
			return err
		}
	}
	if err := j.delim('}'); err != nil {
		return err
	}
	if _, err := j.d.Token(); !errors.Is(err, io.EOF) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "something follows after the end of the JSON document")
	}
	return nil
}

// Array reads a list: f reads each element.
func (j *JSON) Array(f func() error) error {
	if err := j.delim('['); err != nil {
		return err
	}
	for j.d.More() {
		if err := f(); err != nil {
			return err
		}
	}
	return j.delim(']')
}

// Decode reads one value.
func (j *JSON) Decode(v any) error {
	j.r.Renew()
	if err := j.d.Decode(v); err != nil {
		return j.wrap(err)
	}
	return nil
}

// Skip passes over one value.
func (j *JSON) Skip() error {
	var raw json.RawMessage
	return j.Decode(&raw)
}

func (j *JSON) delim(want json.Delim) error {
	t, err := j.token()
	if err != nil {
		return err
	}
	if t != want {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "there is %v in the JSON where %v should be", t, want)
	}
	return nil
}

func (j *JSON) token() (json.Token, error) {
	j.r.Renew()
	t, err := j.d.Token()
	if err != nil {
		return nil, j.wrap(err)
	}
	return t, nil
}

func (j *JSON) wrap(err error) error {
	var known *gatehouse.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the JSON is cut short").WithHint("fetch the file again")
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "this is malformed JSON: %w", err)
}

// SkipBOM passes over a byte order mark.
func SkipBOM(r *bufio.Reader) {
	if mark, err := r.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = r.Discard(3)
	}
}

// Ration is a reader for a JSON decoder that bounds a file and each of its pieces:
// it ends with CodeTooLarge at either limit. The decoder reads ahead by less than
// a piece, so that a piece may in fact be twice as long.
type Ration struct {
	r     io.Reader
	total int64 // bytes left of the file
	piece int64 // limit of one piece
	left  int64 // bytes left until the next Renew
}

// NewRation reads at most totalMax bytes of r, and no more than about pieceMax
// between two calls of Renew.
func NewRation(r io.Reader, totalMax, pieceMax int64) *Ration {
	b := &Ration{r: r, total: totalMax, piece: pieceMax}
	b.Renew()
	return b
}

// Renew begins a piece.
func (b *Ration) Renew() { b.left = 2 * b.piece }

func (b *Ration) Read(p []byte) (int, error) {
	if b.total <= 0 || b.left <= 0 {
		return 0, gatehouse.Errorf(gatehouse.CodeTooLarge, "the file or one of its records is too large (%d bytes for one record)", b.piece)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.total, b.left)])
	b.total, b.left = b.total-int64(n), b.left-int64(n)
	return n, err
}
