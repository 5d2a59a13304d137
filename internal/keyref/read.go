package keyref

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

// readWeb fetches a public key as cosign does; who serves it is whom the
// verification trusts.
func readWeb(ctx context.Context, ref string, o Options) ([]byte, error) {
	e := egress.New(egress.Config{UserTyped: o.Local, Proxies: o.Proxies, UserAgent: "gatehouse"})
	defer e.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ref, nil)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: %w", clip(ref), err)
	}
	client := e.Client()
	follow := client.CheckRedirect
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" {
			return errors.New("it leads away from https://")
		}
		return follow(r, via)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "key %s: %w", clip(ref), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "key %s: the server answered %s", clip(ref), clip(resp.Status))
	}
	return bounded(ref, resp.Body)
}

// readFile reads a file of a kubeconfig, which is a few KiB. Errors: fs.ErrNotExist
// shows through.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, kubeconfigSizeMax+1))
	if err == nil && len(b) > kubeconfigSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", path, kubeconfigSizeMax)
	}
	return b, err
}

// fileOrData reads what a kubeconfig has inline, in base64, or as a path relative
// to it; the first counts. nil where it has neither.
func fileOrData(dir, path, data string) ([]byte, error) {
	if data != "" {
		return base64.StdEncoding.DecodeString(data)
	}
	if path == "" {
		return nil, nil
	}
	return readFile(inside(dir, path))
}

func inside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
