package version

// Spaces lists every ecosystem that has an order.
func Spaces() []string {
	var out []string
	for s := range orders {
		out = append(out, s)
	}
	return out
}
