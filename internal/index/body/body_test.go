package body_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gatehouse-dev/gatehouse/internal/index/body"
)

// TestLoad puts files of changing size through one Body, in memory and on disk:
// nothing of an earlier one shows in a later one.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	b := body.New(100, dir)
	for _, want := range []string{strings.Repeat("a", 5000), "b", "", strings.Repeat("c", 100), strings.Repeat("d", 101), strings.Repeat("e", 3000)} {
		s, err := b.Load(t.Context(), strings.NewReader(want+"behind"), int64(len(want)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err != nil || string(got) != want || s.Size() != int64(len(want)) {
			t.Errorf("%d bytes: %d bytes, %v", len(want), len(got), err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("the file has a name: %v %v", left, err)
		}
	}
	b.Close()
	b.Close()
}

func TestLoadFails(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int64{50, 500} {
		b := body.New(100, t.TempDir())
		defer b.Close()
		if _, err := b.Load(t.Context(), strings.NewReader("short"), size); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes, short: %v", size, err)
		}
		if _, err := b.Load(t.Context(), iotest.ErrReader(broken), size); !errors.Is(err, broken) || errors.As(err, new(*body.DiskError)) {
			t.Errorf("%d bytes, broken: %v", size, err)
		}
	}
	b := body.New(100, "/nonexistent")
	if _, err := b.Load(t.Context(), strings.NewReader(strings.Repeat("x", 500)), 500); !errors.As(err, new(*body.DiskError)) {
		t.Errorf("no disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := body.New(100, t.TempDir()).Load(ctx, strings.NewReader(strings.Repeat("x", 500)), 500); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
