package content

// WithLimits returns the options with other limits of a review.
func (o GCOptions) WithLimits(closure, slice int) GCOptions {
	o.closureMax, o.sliceMax = closure, slice
	return o
}
