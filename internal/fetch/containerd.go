package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-dev/gatehouse"
)

// containerd reads images through two calls of containerd's API, Images.Get and
// Content.Read. Its files cannot be read beside it: the database that says which
// content is whose is locked while it runs. gRPC is HTTP/2 with five bytes before
// each message, which the standard library speaks.
type containerd struct {
	socket    string
	unix      func(path string, h2 bool) http.RoundTripper
	namespace string // "" = the usual ones
}

// containerdNamespaces are ctr's and nerdctl's, the kubelet's, and Docker's.
var containerdNamespaces = []string{"default", "k8s.io", "moby"}

const grpcMessageMax = 16 << 20 // bytes

func (c *containerd) Name() string { return "containerd" }

func (c *containerd) Find(ctx context.Context, name string, ref gatehouse.Ref, p Platform) (*Local, error) {
	if info, err := os.Stat(c.socket); err != nil || info.Mode()&fs.ModeSocket == 0 || ref.Repo == "" {
		return nil, notHere("containerd", name)
	}
	namespaces := containerdNamespaces
	if c.namespace != "" {
		namespaces = []string{c.namespace}
	}
	for _, ns := range namespaces {
		short, cancel := context.WithTimeout(ctx, daemonPatience)
		s := &containerdStore{rt: c.unix(c.socket, true), namespace: ns, socket: c.socket}
		target, err := s.target(short, ref.String())
		cancel()
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &Local{Store: c.Name(), Key: string(target) + " " + p.String(), Open: func(ctx context.Context) (*Image, error) {
			m, err := s.manifest(ctx, target)
			if err != nil {
				return nil, err
			}
			img, err := newChooser(s, p).image(ctx, m)
			if err == nil {
				img.Name = name
			}
			return img, err
		}}, nil
	}
	return nil, notHere("containerd", name)
}

// containerdStore is the content of one namespace.
type containerdStore struct {
	rt                http.RoundTripper
	namespace, socket string
}

// target asks Images.Get for the manifest or index that a name stands for.
func (s *containerdStore) target(ctx context.Context, name string) (gatehouse.Digest, error) {
	call, err := s.call(ctx, "/containerd.services.images.v1.Images/Get", appendString(nil, 1, name))
	if err != nil {
		return "", err
	}
	defer call.Close()
	answer, err := call.message()
	if err != nil {
		return "", err
	}
	const image, target, digest = 1, 3, 2 // GetImageResponse.image.target.digest
	return gatehouse.ParseDigest(string(field(field(field(answer, image), target), digest)))
}

func (s *containerdStore) manifest(ctx context.Context, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	rc, err := s.blob(ctx, gatehouse.Descriptor{Digest: digest})
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, gatehouse.ManifestSizeMax+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > gatehouse.ManifestSizeMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "manifest %s has more than %d bytes", digest, gatehouse.ManifestSizeMax)
	case !digest.Matches(b):
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s has other bytes", digest).WithDetail("DIGEST_INVALID")
	}
	m, _, err := parseManifest(b, "", digest)
	return m, err
}

// blob streams Content.Read.
func (s *containerdStore) blob(ctx context.Context, d gatehouse.Descriptor) (io.ReadCloser, error) {
	call, err := s.call(ctx, "/containerd.services.content.v1.Content/Read", appendString(nil, 1, string(d.Digest)))
	if err != nil {
		return nil, err
	}
	return &grpcBody{grpcCall: call}, nil
}

// grpcCall is the answer to one call: messages, then the status in the trailer.
type grpcCall struct {
	res    *http.Response
	socket string
}

func (s *containerdStore) call(ctx context.Context, method string, message []byte) (*grpcCall, error) {
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd"+method, bytes.NewReader(append(frame, message...)))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Containerd-Namespace": {s.namespace},
	}
	res, err := s.rt.RoundTrip(req)
	if err != nil {
		hint := "is it running?"
		if errors.Is(err, fs.ErrPermission) {
			hint = "run it as root, or leave containerd out of --image-src"
		}
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd at %s does not answer: %w", s.socket, err).WithHint("%s", hint)
	}
	c := &grpcCall{res: res, socket: s.socket}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd at %s answers %d", s.socket, res.StatusCode)
	}
	// An answer without messages has its status in the header.
	if res.Header.Get("Grpc-Status") != "" {
		defer res.Body.Close()
		return nil, c.status(res.Header)
	}
	return c, nil
}

func (c *grpcCall) Close() error { return c.res.Body.Close() }

// message reads the next one; io.EOF after the last if the call succeeded.
func (c *grpcCall) message() ([]byte, error) {
	var head [5]byte
	_, err := io.ReadFull(c.res.Body, head[:])
	if err == io.EOF {
		return nil, c.status(c.res.Trailer)
	}
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd's answer broke off: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || n > grpcMessageMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "containerd sent a message that cannot be read (%d bytes, compressed %d)", n, head[0])
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.res.Body, b); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd's answer broke off: %w", err)
	}
	return b, nil
}

// status turns the trailer of a call into io.EOF or an error.
func (c *grpcCall) status(h http.Header) error {
	const ok, notFound = 0, 5
	code, err := strconv.Atoi(h.Get("Grpc-Status"))
	switch {
	case err != nil:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd's answer broke off")
	case code == ok:
		return io.EOF
	case code == notFound:
		return gatehouse.Errorf(gatehouse.CodeNotFound, "containerd does not have it: %s", clip(h.Get("Grpc-Message")))
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "containerd answers %d: %s", code, clip(h.Get("Grpc-Message")))
}

// grpcBody gives the data of the messages of Content.Read as one stream.
type grpcBody struct {
	*grpcCall
	rest []byte
}

func (b *grpcBody) Read(p []byte) (int, error) {
	const data = 2 // ReadContentResponse.data
	for len(b.rest) == 0 {
		m, err := b.message()
		if err != nil {
			return 0, err
		}
		b.rest = field(m, data)
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func appendString(b []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// field returns the last value with this number of a message, nil if it has
// none or is no message.
func field(message []byte, number protowire.Number) (value []byte) {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if num == number && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return nil
			}
			value, message = v, message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return nil
		}
		message = message[n:]
	}
	return value
}
