package decide

import (
	"context"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// Reading is the object of one request, read once for those who gather facts about its
// images and for the decision. Safe for concurrent use. Use [Read].
type Reading struct {
	req    gatehouse.Request
	images []gatehouse.ImageFacts
	obj    map[string]any
	err    error
}

// Read reads the object of req, whose bytes must not change as long as the Reading is
// used.
func Read(req gatehouse.Request) *Reading {
	r := &Reading{req: req}
	r.images, r.obj, r.err = objectImages(req)
	return r
}

// Images is [PolicySet.Images] of the request that was read.
func (r *Reading) Images() []gatehouse.ImageFacts {
	if len(r.req.Object) == 0 {
		return r.req.Images
	}
	return slices.Clone(r.images)
}

// Decide is the function [Decide]. The object of another request than the one that was
// read is read anew.
func (r *Reading) Decide(ctx context.Context, set PolicySet, req gatehouse.Request) gatehouse.Decision {
	return decide(ctx, session{set: set, req: req, read: r})
}

// of is objectImages of a request. What it returns is shared and must not be changed.
func (r *Reading) of(req gatehouse.Request) ([]gatehouse.ImageFacts, map[string]any, error) {
	if r == nil || !same(r.req.Object, req.Object) || !same(r.req.OldObject, req.OldObject) || r.req.Kind != req.Kind ||
		r.req.Operation != req.Operation || !slices.Equal(r.req.Templates, req.Templates) {
		return objectImages(req)
	}
	return r.images, r.obj, r.err
}

// same reports whether two slices are the same bytes in memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
