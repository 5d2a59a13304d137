package tuf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
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
	// Targets is the folder of the targets below the mirror; empty: "targets".
	Targets string
}

// Fetch is [Fetch].
func (c Client) Fetch(ctx context.Context) (got Fetched, err error) {
	ctx, stop := context.WithTimeout(ctx, fetchMax)
	defer stop()
	up, err := c.refresh(ctx)
	if err != nil {
		return got, err
	}
	if got.TrustedRoot, err = get(up, TrustedRootName); err != nil {
		return Fetched{}, c.failed(err)
	}
	if _, has := up.GetTopLevelTargets()[SigningConfigName]; has {
		if got.SigningConfig, err = get(up, SigningConfigName); err != nil {
			return Fetched{}, c.failed(err)
		}
	}
	got.Expires = expiry(up)
	return got, nil
}

// Target fetches one target, and tells until when the repository vouches for it.
// Errors: as [Fetch]; CodeNotFound: there is no target of this name.
func (c Client) Target(ctx context.Context, name string) (data []byte, until time.Time, err error) {
	ctx, stop := context.WithTimeout(ctx, fetchMax)
	defer stop()
	up, err := c.refresh(ctx)
	if err != nil {
		return nil, until, err
	}
	if _, has := up.GetTopLevelTargets()[name]; !has {
		return nil, until, gatehouse.Errorf(gatehouse.CodeNotFound, "the TUF repository %s has no target %s", c.Mirror, name).
			WithHint("it has %s", names(up))
	}
	if data, err = get(up, name); err != nil {
		return nil, until, c.failed(err)
	}
	return data, expiry(up), nil
}

// expiry is when the first of a repository's metadata expires.
func expiry(up *updater.Updater) time.Time {
	set := up.GetTrustedMetadataSet()
	first := set.Timestamp.Signed.Expires
	ends := []time.Time{set.Root.Signed.Expires, set.Snapshot.Signed.Expires}
	for _, t := range set.Targets {
		ends = append(ends, t.Signed.Expires)
	}
	for _, end := range ends {
		if end.Before(first) {
			first = end
		}
	}
	return first
}

// names lists the targets of a repository, for hints.
func names(up *updater.Updater) string {
	list := slices.Sorted(maps.Keys(up.GetTopLevelTargets()))
	if len(list) > 10 {
		list = append(list[:10], "…")
	}
	return strings.Join(list, ", ")
}

// refresh follows the metadata of the repository from the root to the newest.
func (c Client) refresh(ctx context.Context) (*updater.Updater, error) {
	u, err := url.Parse(c.Mirror)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL of a TUF repository", c.Mirror).WithHint("write https://HOST/tuf")
	}
	if _, err := metadata.Root().FromBytes(c.Root); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the root is no root.json of TUF: %w", err).
			WithHint("`gatehouse sigstore init` of the server writes it")
	}
	cfg, err := config.New(strings.TrimSuffix(c.Mirror, "/"), c.Root)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL of a TUF repository: %w", c.Mirror, err)
	}
	cfg.Fetcher = &fetcher{ctx, c.Transport}
	if c.Targets != "" {
		cfg.RemoteTargetsURL = strings.TrimSuffix(c.Mirror, "/") + "/" + strings.Trim(c.Targets, "/")
	}
	if cfg.DisableLocalCache = c.Dir == ""; !cfg.DisableLocalCache {
		cfg.LocalMetadataDir, cfg.LocalTargetsDir = c.Dir, filepath.Join(c.Dir, "targets")
	}
	up, err := updater.New(cfg)
	if err != nil {
		return nil, c.failed(err)
	}
	if err := up.Refresh(); err != nil {
		return nil, c.failed(err)
	}
	return up, nil
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
