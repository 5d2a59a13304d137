package registrytest

import (
	"io/fs"
	"strings"
	"testing"
)

// A script that looks at nothing would pass whatever a registry does.
func TestScriptsThatCannotFailAreRefused(t *testing.T) {
	for _, text := range []string{
		"GET /v2/\ncode == 200",
		"=== no statement",
		"=== no code\nGET /v2/",
		"=== no code for the first\nGET /v2/\nGET /v2/\ncode == 200",
		"=== an indented line under nothing\n\tcode == 200",
	} {
		if cases, err := parseScript("x", text); err == nil {
			t.Errorf("%q was taken as %+v", text, cases)
		}
	}
}

// The scripts name every endpoint of the specification.
func TestEveryEndpointHasACase(t *testing.T) {
	names, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var titles strings.Builder
	for _, name := range names {
		text, err := scripts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseScript(name, string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			titles.WriteString(c.title + "\n")
		}
	}
	for _, end := range []string{"1", "2", "3", "4a", "4b", "5", "6", "7", "8a", "8b", "9", "10", "11", "12a", "12b", "13", "14"} {
		if !strings.Contains(titles.String(), "end-"+end+" ") {
			t.Errorf("no case is of end-%s", end)
		}
	}
}
