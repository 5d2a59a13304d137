package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// pair is our server and the CNCF registry side by side, both empty, each with
// its authentication on.
type pair struct {
	server *server
	peer   *peer
	ours   *target
	theirs *target
}

func startPair(ctx context.Context, b *bench, name string) (*pair, error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	p := &pair{}
	if p.peer, err = startPeer(ctx, b, filepath.Join(b.work, name+"-peer"), byToken); err != nil {
		return nil, err
	}
	if p.server, err = startServer(ctx, binary, filepath.Join(b.work, name), "--log-level", "error"); err != nil {
		return nil, errors.Join(err, p.peer.stop())
	}
	p.ours, p.theirs = p.server.target(), &p.peer.target
	return p, nil
}

func (p *pair) stop() error { return errors.Join(p.server.stop(), p.peer.stop()) }

// each does the same with both.
func (p *pair) each(do func(c *client) error) error {
	for _, t := range []*target{p.ours, p.theirs} {
		c, err := dial(t)
		if err != nil {
			return err
		}
		err = do(c)
		c.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// blobBytes is one blob with its name.
type blobBytes struct {
	digest string
	body   []byte
}

func newBlob(body []byte) blobBytes { return blobBytes{digestOf(body), body} }

// image is what one push sends.
type image struct {
	config   blobBytes
	layers   []blobBytes
	manifest []byte
}

// randomLayer is a layer with one file of random bytes and its diffID: a real
// layer, because our server reads what it is sent.
func randomLayer(size int) (layer blobBytes, diffID string, err error) {
	body := make([]byte, size)
	rand.Read(body)
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	name := "data/" + rand.Text()
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}); err != nil {
		return layer, "", err
	}
	if _, err := w.Write(body); err != nil {
		return layer, "", err
	}
	if err := w.Close(); err != nil {
		return layer, "", err
	}
	z, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		return layer, "", err
	}
	if _, err := z.Write(plain.Bytes()); err != nil {
		return layer, "", err
	}
	if err := z.Close(); err != nil {
		return layer, "", err
	}
	return newBlob(packed.Bytes()), digestOf(plain.Bytes()), nil
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func (b blobBytes) descriptor(mediaType string) descriptor {
	return descriptor{mediaType, b.digest, len(b.body)}
}

// newImage makes an image that nobody has seen.
func newImage(layers, layerSize int) (image, error) {
	var img image
	var diffIDs []string
	var list []descriptor
	for range layers {
		layer, diffID, err := randomLayer(layerSize)
		if err != nil {
			return img, err
		}
		img.layers, diffIDs = append(img.layers, layer), append(diffIDs, diffID)
		list = append(list, layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip"))
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return img, err
	}
	img.config = newBlob(config)
	img.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "layers": list,
		"config": img.config.descriptor("application/vnd.oci.image.config.v1+json"),
	})
	return img, err
}

// push sends an image over one connection.
func (img image) push(c *client, repo, tag string) error {
	for _, blob := range append([]blobBytes{img.config}, img.layers...) {
		if err := c.pushBlob(repo, blob.digest, blob.body); err != nil {
			return err
		}
	}
	return c.pushManifest(repo, tag, img.manifest)
}

// variant is the image's manifest with an annotation that makes it another one.
func (img image) variant(n int64) []byte {
	return append(img.manifest[:len(img.manifest)-1:len(img.manifest)-1], fmt.Sprintf(`,"annotations":{"n":"%d"}}`, n)...)
}
