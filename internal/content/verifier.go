package content

import (
	"hash"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// verifier hashes a blob while it is read from its first to its last byte, and
// fails instead of handing out the last bytes of one that is damaged, so that
// no reader takes it for whole. Whoever seeks elsewhere and reads on from there
// (a range) gets the bytes unverified.
type verifier struct {
	io.ReadSeekCloser
	digest  gatehouse.Digest
	size    int64
	sum     hash.Hash
	at      int64 // the next byte that is read
	hashed  int64 // bytes in sum; they are the first ones
	broken  error // it is damaged
	damaged func()
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	if v.broken != nil {
		return 0, v.broken
	}
	n, err := v.ReadSeekCloser.Read(p)
	if v.at == v.hashed {
		v.sum.Write(p[:n])
		v.hashed += int64(n)
		if v.hashed >= v.size && n > 0 && !v.right() {
			return 0, v.broken
		}
	}
	v.at += int64(n)
	return n, err
}

// right judges once all bytes are hashed.
func (v *verifier) right() bool {
	got := gatehouse.NewDigest(v.digest.Algorithm(), v.sum.Sum(nil))
	if v.hashed == v.size && got == v.digest {
		return true
	}
	v.broken = errDamaged("the stored bytes of blob %s have been damaged", v.digest)
	if v.damaged != nil {
		v.damaged()
	}
	return false
}

// Seek implements io.Seeker.
func (v *verifier) Seek(offset int64, whence int) (int64, error) {
	at, err := v.ReadSeekCloser.Seek(offset, whence)
	if err != nil {
		return at, err
	}
	v.at = at
	if at == 0 {
		v.sum.Reset()
		v.hashed = 0
	}
	return at, nil
}
