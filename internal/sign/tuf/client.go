package tuf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/gatehouse-dev/gatehouse"
)

// Names of the targets, as stock clients look for them.
const (
	TrustedRootName   = "trusted_root.json"
	SigningConfigName = "signing_config.v0.2.json"
)

// fetchMax bounds the time of one fetch, all files together.
const fetchMax = 2 * time.Minute

// Fetch asks the TUF repository at mirror, beginning with a root that the caller
// trusts (any version of root.json), for the trust root and the signing
// configuration of a Sigstore. It keeps nothing: see [Client] for one that does.
// CodeDenied: the repository does not follow from the root, or is out of date.
// CodeUnavailable: it cannot be reached. CodeInvalid: the root or the URL is none.
func Fetch(ctx context.Context, transport http.RoundTripper, mirror string, root []byte) (trustedRoot, signingConfig []byte, err error) {
	got, err := Client{Mirror: mirror, Root: root, Transport: transport}.Fetch(ctx)
	return got.TrustedRoot, got.SigningConfig, err
}

// Fetched is what a repository vouches for.
type Fetched struct {
	TrustedRoot   []byte
	SigningConfig []byte // nil: the repository has none
	// Expires is until when it vouches: when the first of its metadata expires. A
	// repository that cannot be asked again by then may have other things to say.
	Expires time.Time
}

// Client fetches from a TUF repository.
type Client struct {
	Mirror    string // URL
	Root      []byte // root.json, of any version
	Transport http.RoundTripper
	// Dir keeps the newest metadata, so that nobody can offer older ones later;
	// empty keeps nothing. It is the directory of one mirror.
	Dir string
}

// Fetch is [Fetch].
func (c Client) Fetch(ctx context.Context) (got Fetched, err error) {
	ctx, stop := context.WithTimeout(ctx, fetchMax)
	defer stop()
	u, err := url.Parse(c.Mirror)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return got, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL of a TUF repository", c.Mirror).WithHint("write https://HOST/tuf")
	}
	if _, err := metadata.Root().FromBytes(c.Root); err != nil {
		return got, gatehouse.Errorf(gatehouse.CodeInvalid, "the root is no root.json of TUF: %w", err).
			WithHint("`gatehouse sigstore init` of the server writes it")
	}
	cfg, err := config.New(strings.TrimSuffix(c.Mirror, "/"), c.Root)
	if err != nil {
		return got, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL of a TUF repository: %w", c.Mirror, err)
	}
	cfg.Fetcher = &fetcher{ctx, c.Transport}
	if cfg.DisableLocalCache = c.Dir == ""; !cfg.DisableLocalCache {
		cfg.LocalMetadataDir, cfg.LocalTargetsDir = c.Dir, filepath.Join(c.Dir, "targets")
	}
	if got, err = fetch(cfg); err != nil {
		return Fetched{}, c.failed(err)
	}
	return got, nil
}

func fetch(cfg *config.UpdaterConfig) (got Fetched, err error) {
	up, err := updater.New(cfg)
	if err != nil {
		return got, err
	}
	if err := up.Refresh(); err != nil {
		return got, err
	}
	if got.TrustedRoot, err = get(up, TrustedRootName); err != nil {
		return got, err
	}
	if _, has := up.GetTopLevelTargets()[SigningConfigName]; has {
		if got.SigningConfig, err = get(up, SigningConfigName); err != nil {
			return got, err
		}
	}
	set := up.GetTrustedMetadataSet()
	got.Expires = set.Timestamp.Signed.Expires
	ends := []time.Time{set.Root.Signed.Expires, set.Snapshot.Signed.Expires}
	for _, t := range set.Targets {
		ends = append(ends, t.Signed.Expires)
	}
	for _, end := range ends {
		if end.Before(got.Expires) {
			got.Expires = end
		}
	}
	return got, nil
}

// targetMax bounds a target, in bytes.
const targetMax = 4 << 20

func get(up *updater.Updater, name string) ([]byte, error) {
	info, err := up.GetTargetInfo(name)
	if err != nil {
		return nil, err
	}
	if info.Length > targetMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", name, targetMax)
	}
	_, data, err := up.FindCachedTarget(info, "")
	if err == nil && data != nil {
		return data, nil
	}
	_, data, err = up.DownloadTarget(info, "", "")
	return data, err
}

// failed tells errors of the network from metadata that proves nothing.
func (c Client) failed(err error) error {
	var known *gatehouse.Error
	var status *metadata.ErrDownloadHTTP
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &status):
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the TUF repository %s answered %d for %s", c.Mirror, status.StatusCode, status.URL).
			WithHint("is this the URL? A server with sigstore: true has it at https://HOST/tuf")
	}
	var expired *metadata.ErrExpiredMetadata
	if errors.As(err, &expired) {
		return gatehouse.Errorf(gatehouse.CodeDenied, "the metadata of %s have expired: %w", c.Mirror, err).
			WithHint("is the server that renews them running, and is this machine's clock right?")
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "the metadata of %s do not follow from the root: %w", c.Mirror, err).
		WithHint("is this root.json from that server? `gatehouse sigstore init` writes it anew")
}

// fetcher implements the fetcher of go-tuf on a transport, without its repeats.
type fetcher struct {
	ctx       context.Context // of the one call that fetches
	transport http.RoundTripper
}

// DownloadFile implements fetcher.Fetcher.
func (f *fetcher) DownloadFile(path string, max int64, _ time.Duration) ([]byte, error) {
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL: %w", path, err)
	}
	client := http.Client{Transport: f.transport}
	res, err := client.Do(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't reach the TUF repository: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: res.StatusCode, URL: path}
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, max+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the TUF repository's answer broke off: %w", err)
	}
	if int64(len(data)) > max {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has more than %d bytes", path, max)}
	}
	return data, nil
}
