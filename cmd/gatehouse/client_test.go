package main

import "testing"

// TestServerWithoutScheme: only this machine is spoken to without TLS unless
// somebody says so.
func TestServerWithoutScheme(t *testing.T) {
	for server, want := range map[string]string{
		"registry.example":       "https://",
		"registry.example:5000":  "https://",
		"registry.example/base":  "https://",
		"10.0.0.5:5000":          "https://",
		"localhost.evil.example": "https://",
		"127.0.0.1.evil.example": "https://",
		"localhost:5000":         "http://",
		"localhost":              "http://",
		"127.0.0.1:5000/base":    "http://",
		"[::1]:5000":             "http://",
		"[::1]":                  "http://",
	} {
		if got := schemeOf(server); got != want {
			t.Errorf("%s: %s, want %s", server, got, want)
		}
	}
}
