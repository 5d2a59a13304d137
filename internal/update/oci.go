package update

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// trivyLayer is the media type of the one layer of Trivy's database.
const trivyLayer = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"

// manifestDoc is the part of an artifact's manifest that is read here.
type manifestDoc struct {
	MediaType    string                 `json:"mediaType"`
	ArtifactType string                 `json:"artifactType"`
	Config       gatehouse.Descriptor   `json:"config"`
	Layers       []gatehouse.Descriptor `json:"layers"`
	Annotations  map[string]string      `json:"annotations"`
}

// artifact downloads the layer of a media type from the first repository that
// hands it out.
func (f *Fetcher) artifact(ctx context.Context, repos []string, known, mediaType string, sizeMax int64, out *os.File) (validator string, err error) {
	var failures []string
	var first error
	var soonest time.Time // when one of those that ask for patience may be asked again
	patient := 0
	for _, repo := range repos {
		validator, err := f.fromRepository(ctx, repo, known, mediaType, sizeMax, out)
		if err == nil || errors.Is(err, errUnchanged) || ctx.Err() != nil {
			return validator, err
		}
		var wait *waitError
		if errors.As(err, &wait) {
			patient++
			if soonest.IsZero() || wait.until.Before(soonest) {
				soonest = wait.until
			}
		}
		if first == nil {
			first = err
		}
		failures = append(failures, repo+": "+err.Error())
	}
	if len(failures) == 1 {
		return "", first
	}
	err = gatehouse.Errorf(gatehouse.CodeOf(first), "%s", strings.Join(failures, "; ")).WithHint("%s", gatehouse.HintOf(first))
	if patient == len(failures) {
		return "", &waitError{err, soonest}
	}
	return "", err
}

// fromRepository downloads it from one repository.
func (f *Fetcher) fromRepository(ctx context.Context, repo, known, mediaType string, sizeMax int64, out *os.File) (validator string, err error) {
	ref, err := gatehouse.ParseRef(repo)
	if err != nil {
		return "", err
	}
	asked := &patience{inner: f.Transport, now: f.time}
	reg := f.Registry(ref.Registry, asked)
	err = f.retry(ctx, func(ctx context.Context) error {
		asked.reset()
		validator, err = fetchLayer(ctx, reg, ref, known, mediaType, sizeMax, out)
		return asked.explain(err)
	})
	return validator, err
}

// database fetches the whole database that another Gatehouse has exported. Its
// tag is asked for the manifest; nothing more is fetched if that is of a database
// that we have, or had.
func (f *Fetcher) database(ctx context.Context, r *Result) (version string, err error) {
	ref, err := gatehouse.ParseRef(r.Feed.repos[0])
	if err != nil {
		return "", err
	}
	asked := &patience{inner: f.Transport, now: f.time}
	reg := f.Registry(ref.Registry, asked)
	var path string
	var about About
	err = f.retry(ctx, func(ctx context.Context) error {
		asked.reset()
		var err error
		path, about, err = unpackUnless(ctx, reg, ref, f.Dir, func(a About) (bool, error) {
			if r.before.Forced {
				return false, nil
			}
			return f.Held(ctx, a.Digest)
		})
		return asked.explain(err)
	})
	if err != nil {
		return "", err
	}
	if r.File, err = os.Open(path); err != nil {
		_ = os.Remove(path) // in a directory for passing files
		return "", diskFailed(err)
	}
	r.temp, r.Size, r.holds = true, about.Size, about.Records
	return string(about.Digest), nil
}

// fetchLayer reads the manifest that ref names and its one layer of a media type.
func fetchLayer(ctx context.Context, reg Registry, ref gatehouse.Ref, known, mediaType string, sizeMax int64, out *os.File) (validator string, err error) {
	m, err := manifestOf(ctx, reg, ref)
	if err != nil {
		return "", err
	}
	validator = "digest:" + string(m.Digest)
	if known == validator {
		return validator, errUnchanged
	}
	var doc manifestDoc
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is not JSON: %w", m.Digest, err)
	}
	at := slices.IndexFunc(doc.Layers, func(d gatehouse.Descriptor) bool { return d.MediaType == mediaType })
	if at < 0 || len(doc.Layers) != 1 {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s is something else: it has no layer of the type %s", ref, mediaType)
	}
	return validator, copyBlob(ctx, reg, ref.Repo, doc.Layers[at], sizeMax, out)
}

func manifestOf(ctx context.Context, reg Registry, ref gatehouse.Ref) (*gatehouse.Manifest, error) {
	if ref.Digest != "" {
		return reg.Manifest(ctx, ref.Repo, ref.Digest)
	}
	return reg.ManifestByTag(ctx, ref.Repo, ref.Tag)
}

// copyBlob writes a blob into out from its beginning, and compares it with its
// descriptor.
func copyBlob(ctx context.Context, reg Registry, repo gatehouse.Repo, d gatehouse.Descriptor, sizeMax int64, out *os.File) error {
	if d.Size < 0 || d.Size > sizeMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the layer has %d bytes, %d at most", d.Size, sizeMax)
	}
	if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
		return err
	}
	if err := out.Truncate(0); err != nil {
		return diskFailed(err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return diskFailed(err)
	}
	blob, err := reg.OpenBlob(ctx, repo, d.Digest)
	if err != nil {
		return err
	}
	defer discard(blob.Body)
	h := d.Digest.Hash()
	n, err := io.Copy(io.MultiWriter(diskWriter{out}, h), io.LimitReader(blob.Body, d.Size+1))
	var disk *diskError
	var own *gatehouse.Error
	switch {
	case errors.As(err, &disk):
		return diskFailed(disk.err)
	case errors.As(err, &own) && own.Code != gatehouse.CodeUnavailable:
		return err
	case err != nil:
		return &transient{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "the layer broke off after %d bytes: %w", n, bare(err))}
	case n != d.Size || gatehouse.NewDigest(d.Digest.Algorithm(), h.Sum(nil)) != d.Digest:
		return &transient{err: gatehouse.Errorf(gatehouse.CodeInvalid, "the layer has other bytes than %s", d.Digest)}
	}
	return nil
}

// patience notes what a registry asks for when it refuses: its client keeps the
// status only.
type patience struct {
	inner http.RoundTripper
	now   func() time.Time

	mu     sync.Mutex
	status int // of the last refusal, 0 for none
	pause  time.Duration
}

func (p *patience) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.inner.RoundTrip(req)
	if err == nil && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.status, p.pause = resp.StatusCode, retryAfter(resp.Header, p.now())
	}
	return resp, err
}

func (p *patience) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.pause = 0, 0
}

// explain marks errors after which the same may be tried again.
func (p *patience) explain(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var again *transient
	switch {
	case err == nil || errors.Is(err, errUnchanged):
		return err
	case gatehouse.CodeOf(err) == gatehouse.CodeTooMany || p.status == http.StatusTooManyRequests:
		return &transient{err, cmp.Or(p.pause, time.Minute)}
	case errors.As(err, &again):
		return &transient{again.err, max(again.pause, p.pause)}
	case gatehouse.CodeOf(err) == gatehouse.CodeUnavailable:
		return &transient{err, p.pause}
	}
	return err
}
