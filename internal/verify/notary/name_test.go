package notary

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNames(t *testing.T) {
	for text, want := range map[string]name{
		"C=US,ST=WA,O=a":                          {"C": "US", "ST": "WA", "O": "a"},
		" c = US ,  S=WA; O = a b  ":              {"C": "US", "ST": "WA", "O": "a b"},
		`C=US,ST=WA,O=a\, b\ `:                    {"C": "US", "ST": "WA", "O": "a, b "},
		`C=US,ST=WA,O=caf\C3\A9,CN=x=y`:           {"C": "US", "ST": "WA", "O": "café", "CN": "x=y"},
		`C=US,ST=WA,O=a,2.5.4.97=VAT,STREET=1\+2`: {"C": "US", "ST": "WA", "O": "a", "2.5.4.97": "VAT", "STREET": "1+2"},
		"":                   nil,
		"C=US,ST=WA":         nil,
		"C=US,ST=WA,O=":      nil,
		"C=US,ST=WA,O=a,":    nil,
		"C=US,ST=WA,O=a,O=b": nil,
		"C=US,ST=WA,S=W,O=a": nil,
		"C=US+ST=WA,O=a":     nil,
		"C=US,ST=WA,O=#0401": nil,
		`C=US,ST=WA,O="a"`:   nil,
		`C=US,ST=WA,O=a\`:    nil,
		`C=US,ST=WA,O=a\x`:   nil,
		`C=US,ST=WA,O=a\FF`:  nil,
		"C=US,ST=WA,O=a,x":   nil,
		"C=US,ST=WA,O=a,=x":  nil,
		"C=US,ST=WA,O=a,é=x": nil,
	} {
		got, err := parseName(text)
		if (err == nil) != (want != nil) || err == nil && !cmp.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if !(name{"C": "US"}).covers(name{"C": "US", "O": "a"}) || (name{"C": "US"}).covers(name{"C": "us"}) || (name{"O": "a"}).covers(name{"C": "US"}) {
		t.Error("covers")
	}
}

func FuzzName(f *testing.F) {
	f.Add(`C=US,ST=WA,O=caf\C3\A9\, x`)
	f.Add(" c = US ;S=WA,O=a+b")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseName(text)
		if err == nil && (n["C"] == "" || n["ST"] == "" || n["O"] == "" || !n.covers(n)) {
			t.Errorf("%q: %v", text, n)
		}
	})
}
