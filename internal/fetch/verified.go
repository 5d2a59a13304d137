package fetch

import (
	"hash"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// verified passes bytes on and ends with an error instead of io.EOF when they
// are not the ones that the descriptor names. size < 0 means unknown.
type verified struct {
	rc     io.ReadCloser
	hash   hash.Hash
	digest gatehouse.Digest
	size   int64
	n      int64
	end    error
}

func newVerified(rc io.ReadCloser, digest gatehouse.Digest, size int64) *verified {
	return &verified{rc: rc, hash: digest.Hash(), digest: digest, size: size}
}

func (v *verified) Read(p []byte) (int, error) {
	if v.end != nil {
		return 0, v.end
	}
	if v.hash == nil {
		v.end = gatehouse.Errorf(gatehouse.CodeInvalid, "digest %q is not known here", v.digest).WithDetail("DIGEST_INVALID")
		return 0, v.end
	}
	n, err := v.rc.Read(p)
	v.n += int64(n)
	v.hash.Write(p[:n])
	switch {
	case v.size >= 0 && v.n > v.size:
		v.end = gatehouse.Errorf(gatehouse.CodeInvalid, "blob %s is longer than the %d bytes that its descriptor says", v.digest, v.size).WithDetail("SIZE_INVALID")
		// Nothing of the overlong tail leaves this reader.
		return max(0, n-int(v.n-v.size)), v.end
	case err == io.EOF:
		v.end = v.check()
		return n, v.end
	case err != nil:
		v.end = err
	}
	return n, err
}

func (v *verified) check() error {
	if v.size >= 0 && v.n != v.size {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "blob %s has %d bytes, its descriptor says %d", v.digest, v.n, v.size).WithDetail("SIZE_INVALID")
	}
	if got := gatehouse.NewDigest(v.digest.Algorithm(), v.hash.Sum(nil)); got != v.digest {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "blob %s has other bytes: they are %s", v.digest, got).WithDetail("DIGEST_INVALID")
	}
	return io.EOF
}

func (v *verified) Close() error { return v.rc.Close() }
