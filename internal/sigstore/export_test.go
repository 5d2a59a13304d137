package sigstore

// Entry reads the body of a request and returns the kind and body of its entry.
func Entry(body []byte) (kind string, entry []byte, err error) {
	c, err := newChecker()
	if err != nil {
		return "", nil, err
	}
	e, err := c.entry(body)
	return e.kind, e.body, err
}
