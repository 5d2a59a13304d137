package seal_test

import (
	"bytes"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/sign/seal"
)

func TestBox(t *testing.T) {
	key, plain := bytes.Repeat([]byte{1}, seal.KeySize), []byte("secret")
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.New(bytes.Repeat([]byte{2}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	clear(key)
	sealed := box.Seal(plain, []byte("place"))
	if got, err := box.Open(sealed, []byte("place")); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q %v", got, err)
	}
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, box.Seal(plain, []byte("place"))) {
		t.Error("what is sealed shows what it is")
	}
	for name, open := range map[string]func() ([]byte, error){
		"another place": func() ([]byte, error) { return box.Open(sealed, []byte("places")) },
		"another key":   func() ([]byte, error) { return other.Open(sealed, []byte("place")) },
		"cut":           func() ([]byte, error) { return box.Open(sealed[:len(sealed)-1], []byte("place")) },
		"cut short":     func() ([]byte, error) { return box.Open(sealed[:3], []byte("place")) },
		"nothing":       func() ([]byte, error) { return box.Open(nil, []byte("place")) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s opens: %q", name, got)
		}
	}
	if _, err := seal.New([]byte("short")); err == nil {
		t.Error("a short key makes a box")
	}
}
