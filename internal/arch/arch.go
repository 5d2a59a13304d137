// Package arch holds the house up: its test parses the imports of every file
// of the module and checks them against the table of who may import whom. It
// parses instead of asking `go list`, whose answer the test cache would serve
// stale.
package arch
