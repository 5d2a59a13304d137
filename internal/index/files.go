package index

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Files streams a layer once and hands its regular files to visit, by the paths
// that [Layer] gives them and within the same limits, in the order of the archive:
// a path may come twice, and the last one counts. What visit leaves of content is
// skipped. An error of visit ends the walk and is returned as it is; the others are
// those of Layer. Nothing of the layer is kept.
func Files(ctx context.Context, r io.Reader, limits Limits, visit func(path string, size int64, content io.Reader) error) error {
	limits = limits.withDefaults()
	s := newStream(ctx, r, limits)
	walkErr, visitErr := eachFile(ctx, s, limits, visit)
	if walkErr == nil && visitErr == nil {
		_, walkErr = s.drain()
	}
	err := s.finish(ctx)
	switch {
	case visitErr != nil:
		return visitErr
	case err == nil || gatehouse.CodeOf(walkErr) == gatehouse.CodeTooLarge:
		return walkErr
	}
	return err
}

// eachFile walks the archive up to its end.
func eachFile(ctx context.Context, s *stream, limits Limits, visit func(string, int64, io.Reader) error) (walkErr, visitErr error) {
	t := tar.NewReader(struct{ io.Reader }{s})
	w := &walker{ctx: ctx, limits: limits}
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return w.tarError(err), nil
		}
		if err := w.count(); err != nil {
			return err, nil
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeCont && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		name, err := cleanPath(h.Name, limits)
		if err != nil || strings.HasPrefix(path.Base(name), whiteoutPrefix) {
			continue // as in Layer, which says so
		}
		if err := visit(name, h.Size, t); err != nil {
			return nil, err
		}
	}
}
