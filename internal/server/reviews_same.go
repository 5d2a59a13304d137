package server

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// sameReviewsMax is how many reviews are known again at least.
const sameReviewsMax = 8192

// sameReviews finds the digest of a review without reading it, where one came before
// that is the same by what the API server wrote: most do, and reading one costs more than
// deciding it. Not for concurrent use.
type sameReviews struct {
	young, old map[reviewKey][sha256.Size]byte // at most sameReviewsMax each
	text       []byte                          // memory
}

type reviewKey [sha256.Size]byte

// keyOf makes the key of a review: those with one key have one digest (see
// docOfReview). ok is false for what is to be read.
func (s *sameReviews) keyOf(one reviewed) (key reviewKey, ok bool) {
	req := one.req
	if len(req.Review) == 0 || len(req.Review) > reviewRestMax {
		return key, false
	}
	b := s.text[:0]
	add := func(text string) { b = append(binary.AppendUvarint(b, uint64(len(text))), text...) }
	add(one.verdict.String())
	b = append(binary.AppendUvarint(b, uint64(len(req.NamespaceObject))), req.NamespaceObject...)
	if req.Mutated {
		add("mutated")
	}
	for _, path := range req.Templates {
		add(path)
	}
	add("")
	for _, f := range req.Images {
		add(f.Written)
		add(string(f.Image.Digest))
	}
	add("")
	// What the request has by name is in it (see admit), and its objects.
	b, ok = workload.AppendGeneral(b, req.Review)
	if s.text = b; cap(b) > reviewRestMax {
		s.text = nil
	}
	return sha256.Sum256(b), ok
}

func (s *sameReviews) digest(key reviewKey) (gatehouse.Digest, bool) {
	sum, ok := s.young[key]
	if !ok {
		sum, ok = s.old[key]
	}
	if !ok {
		return "", false
	}
	return gatehouse.NewDigest(gatehouse.SHA256, sum[:]), true
}

func (s *sameReviews) put(key reviewKey, digest gatehouse.Digest) {
	var sum [sha256.Size]byte
	if n, err := hex.Decode(sum[:], []byte(digest.Hex())); err != nil || n != len(sum) {
		return
	}
	if s.young == nil || len(s.young) >= sameReviewsMax {
		s.old, s.young = s.young, map[reviewKey][sha256.Size]byte{}
	}
	s.young[key] = sum
}
