package fetch

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Local is an image that a store on this machine has.
type Local struct {
	// Store is "docker", "containerd" or "podman".
	Store string
	// Key names the image's bytes: equal keys, equal bytes. The stores verify
	// them when they take them in.
	Key string
	// Open reads the image; the caller closes it.
	Open func(ctx context.Context) (*Image, error)
}

// LocalStore looks for images in one store of this machine.
type LocalStore interface {
	// Name is the store's, as --image-src has it.
	Name() string
	// Find looks for the image that a person typed as name and that ref means.
	// ref is zero where name is no reference (an image id). Errors:
	// CodeNotFound (there is no such store, or it does not have the image), and
	// CodeUnavailable (the store is there but does not answer or cannot be read).
	Find(ctx context.Context, name string, ref gatehouse.Ref, p Platform) (*Local, error)
}

// LocalOptions say where stores are. Empty fields are the usual places.
type LocalOptions struct {
	Getenv func(string) string // os.Getenv in a program
	// Unix makes a transport to a socket, with HTTP/2 if h2; it is egress's.
	Unix func(path string, h2 bool) http.RoundTripper
	// TempDir is where a daemon's archive is kept while it is read.
	TempDir    string
	DockerHost string // socket or unix:// URL
	PodmanHost string
	// PodmanRoot is the graph root of containers/storage.
	PodmanRoot string
	// Containerd is the address of containerd.
	Containerd string
}

// LocalStores returns the stores with these names, in this order. CodeInvalid:
// a name is unknown.
func LocalStores(names []string, o LocalOptions) ([]LocalStore, error) {
	var out []LocalStore
	for _, name := range names {
		switch name {
		case "docker":
			out = append(out, &daemon{name: name, socket: o.dockerSocket(), unix: o.Unix, tempDir: o.TempDir})
		case "containerd":
			out = append(out, &containerd{socket: o.containerdSocket(), unix: o.Unix, namespace: o.Getenv("CONTAINERD_NAMESPACE")})
		case "podman":
			out = append(out, &podman{roots: o.podmanRoots()},
				&daemon{name: name, socket: o.podmanSocket(), unix: o.Unix, tempDir: o.TempDir})
		default:
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "image source %q is unknown", name).WithHint("use docker, containerd, podman or remote")
		}
	}
	return out, nil
}

// socketPath reads what DOCKER_HOST may hold. TCP and SSH are not spoken: "".
func socketPath(s string) string {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		return path
	}
	if strings.Contains(s, "://") || !filepath.IsAbs(s) {
		return ""
	}
	return s
}

func (o LocalOptions) dockerSocket() string {
	for _, s := range []string{o.DockerHost, o.Getenv("DOCKER_HOST")} {
		if s != "" {
			return socketPath(s)
		}
	}
	return "/var/run/docker.sock"
}

func (o LocalOptions) podmanSocket() string {
	for _, s := range []string{o.PodmanHost, o.Getenv("CONTAINER_HOST")} {
		if s != "" {
			return socketPath(s)
		}
	}
	if dir := o.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "podman", "podman.sock")
	}
	return "/run/podman/podman.sock"
}

func (o LocalOptions) containerdSocket() string {
	for _, s := range []string{o.Containerd, o.Getenv("CONTAINERD_ADDRESS")} {
		if s != "" {
			return socketPath(s)
		}
	}
	return "/run/containerd/containerd.sock"
}

// notHere is the answer of a store that does not have the image.
func notHere(store, name string) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "%s does not have %s", store, clip(name))
}
