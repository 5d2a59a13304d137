package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// daemonPatience is how long a daemon may take to say whether it has an
	// image: one that hangs must not keep a scan from asking a registry.
	daemonPatience = 5 * time.Second
	inspectSizeMax = 16 << 20
	// spoolSizeMax bounds what is kept on disk of an archive that cannot be
	// read in place, in bytes.
	spoolSizeMax = 64 << 30
)

// daemon is a program that speaks Docker's Engine API on a socket: Docker, or
// Podman's service.
type daemon struct {
	name, socket string
	unix         func(path string, h2 bool) http.RoundTripper
	tempDir      string
}

func (d *daemon) Name() string { return d.name }

// inspected is what the Engine API tells of an image (ImageInspect).
type inspected struct {
	ID          string `json:"Id"`
	RepoTags    []string
	RepoDigests []string
}

func (d *daemon) Find(ctx context.Context, name string, ref gatehouse.Ref, p Platform) (*Local, error) {
	if info, err := os.Stat(d.socket); err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil, notHere(d.name, name)
	}
	short, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	body, err := d.get(short, "/images/"+name+"/json")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var info inspected
	if err := json.NewDecoder(io.LimitReader(body, inspectSizeMax)).Decode(&info); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the %s daemon's answer cannot be read: %w", d.name, err)
	}
	id, err := gatehouse.ParseDigest(info.ID)
	if err != nil {
		return nil, err
	}
	return &Local{Store: d.name, Key: string(id), Open: func(ctx context.Context) (*Image, error) {
		img, err := d.save(ctx, id, p)
		if err != nil {
			return nil, err
		}
		img.Name = name
		if digest := info.digest(ref); digest != "" {
			img.Ref.Digest = digest
		}
		return img, nil
	}}, nil
}

// digest is that of the manifest which a registry knows, "" if the image came
// from none.
func (i inspected) digest(ref gatehouse.Ref) gatehouse.Digest {
	for _, s := range i.RepoDigests {
		r, err := gatehouse.ParseRef(s)
		if err == nil && r.Name() == ref.Name() && (ref.Digest == "" || ref.Digest == r.Digest) {
			return r.Digest
		}
	}
	return ""
}

// save has the daemon write its archive (ImageGet), which is kept in a file
// without a name: a stream cannot be read in the order of layers.
func (d *daemon) save(ctx context.Context, id gatehouse.Digest, p Platform) (*Image, error) {
	body, err := d.get(ctx, "/images/"+string(id)+"/get")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	f, err := spool(ctx, body, d.tempDir)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the image couldn't be read from the %s daemon: %w", d.name, err)
	}
	return fromFile(ctx, f, ArchiveOptions{Platform: p})
}

func (d *daemon) get(ctx context.Context, path string) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: d.name, Path: path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err)
	}
	res, err := d.unix(d.socket, false).RoundTrip(req)
	if err != nil {
		hint := "is the daemon running?"
		if errors.Is(err, fs.ErrPermission) {
			hint = "join the group that may use " + d.socket + ", or leave " + d.name + " out of --image-src"
		}
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the %s daemon at %s does not answer: %w", d.name, d.socket, err).WithHint("%s", hint)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusBadRequest { // a name that it cannot even parse
		return nil, notHere(d.name, strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json"))
	}
	said, _ := io.ReadAll(io.LimitReader(res.Body, drainMax))
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the %s daemon answers %d: %s", d.name, res.StatusCode, clip(string(said)))
}

// spool copies r to a file that has no name any more: it goes when it is
// closed, in whatever way the process ends.
func spool(ctx context.Context, r io.Reader, dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "gatehouse-*.tar")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(cancellable{ctx, r}, spoolSizeMax+1))
	if err == nil && n > spoolSizeMax {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "the archive has more than %d bytes", int64(spoolSizeMax))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
