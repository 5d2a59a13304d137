package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSum combines stages: a run counts over a skip, a failure over all, and a
// skip that names a tool fails where tools are required.
func TestSum(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, records ...record) string {
		all := newTally()
		for _, r := range records {
			all.add(r)
		}
		path := filepath.Join(dir, name)
		if err := all.write(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("test.json",
		record{Test: "vet", Result: passed},
		record{Package: "internal/sign", Test: "TestCosign", Result: skipped, Reason: "GATEHOUSE_COSIGN is not set"},
		record{Package: "internal/sign", Test: "TestAlone", Result: skipped, Reason: "etcd is not installed"},
		record{Package: "internal/sign", Test: "TestBoth", Result: skipped, Reason: "GATEHOUSE_COSIGN is not set"},
		record{Package: "internal/sign", Test: "TestFlaky", Result: passed},
		record{Package: "internal/match", Test: "TestData", Result: skipped, Reason: "shared/data is not here: ../shared"},
	)
	second := write("e2e.json",
		record{Package: "internal/sign", Test: "TestCosign", Result: passed},
		record{Package: "internal/sign", Test: "TestBoth/sqlite", Result: passed},
		record{Package: "internal/sign", Test: "TestFlaky", Result: failed},
		record{Package: "test/e2e", Test: "TestWebhook", Result: passed},
	)
	empty := filepath.Join(dir, "empty.json")
	if err := os.WriteFile(empty, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(dir, "unknown.json")
	if err := os.WriteFile(unknown, []byte(`[{"test":"x","result":"great"}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		files   []string
		require bool
		code    int
		want    string // last line, or what the error says
	}{
		{"one", []string{second}, false, 1, "3 passed, 1 failed, 0 skipped"},
		{"both", []string{first, second}, false, 1, "4 passed, 1 failed, 2 skipped"},
		{"order does not matter", []string{second, first}, false, 1, "4 passed, 1 failed, 2 skipped"},
		{"tools required", []string{first, second}, true, 1, "4 passed, 2 failed, 1 skipped"},
		{"no failure", []string{first}, false, 0, "2 passed, 0 failed, 4 skipped"},
		{"a stage that left no file", []string{first, filepath.Join(dir, "none.json")}, false, 2, "no such file"},
		{"a stage that ran nothing", []string{first, empty}, false, 2, "holds no results"},
		{"an unknown result", []string{unknown}, false, 2, `result "great" is unknown`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := sum(tt.files, tt.require, &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if code == 2 {
				if !strings.Contains(stderr.String(), tt.want) {
					t.Errorf("said %q, want %q", stderr.String(), tt.want)
				}
				return
			}
			lines := strings.Split(strings.TrimRight(stdout.String(), "\n"), "\n")
			if got := lines[len(lines)-1]; got != tt.want {
				t.Errorf("last line is %q, want %q", got, tt.want)
			}
		})
	}
}

// TestRequireTools: names count as whole words only.
func TestRequireTools(t *testing.T) {
	tests := []struct {
		reason string
		want   result
	}{
		{"skopeo is not installed", failed},
		{"needs kube-apiserver (make e2e)", failed},
		{"GATEHOUSE_KUBE_APISERVER is not set", failed},
		{"COSIGN_PASSWORD is set in this shell", skipped},
		{"a recosigned image", skipped},
		{"shared/data is not here", skipped},
	}
	for _, tt := range tests {
		all := newTally()
		all.add(record{Test: "T", Result: skipped, Reason: tt.reason})
		all.requireTools([]string{"skopeo", "cosign", "kube-apiserver", "GATEHOUSE_KUBE_APISERVER"})
		if got := all.records["T"].Result; got != tt.want {
			t.Errorf("%q: %s, want %s", tt.reason, resultNames[got], resultNames[tt.want])
		}
	}
}

// TestZeroRecordFails: what nobody set is a failure.
func TestZeroRecordFails(t *testing.T) {
	all := newTally()
	all.add(record{Test: "forgotten"})
	if got := all.line(); got != "0 passed, 1 failed, 0 skipped" {
		t.Error(got)
	}
}

// TestNothingRan: a run that skipped every test is a failure, whatever its
// checks say.
func TestNothingRan(t *testing.T) {
	for _, tt := range []struct {
		result result
		code   int
		want   string
	}{
		{skipped, 1, "1 passed, 1 failed, 1 skipped"},
		{passed, 0, "2 passed, 0 failed, 0 skipped"},
		{failed, 1, "1 passed, 1 failed, 0 skipped"},
	} {
		var out bytes.Buffer
		r := &runner{out: &out, stage: "test", tally: newTally()}
		r.tally.add(record{Test: "vet", Result: passed})
		r.tally.add(record{Package: "p", Test: "T", Result: tt.result, Reason: "because"})
		r.seal(t.Context())
		if code := r.finish(); code != tt.code {
			t.Errorf("%s: exit code %d, want %d", resultNames[tt.result], code, tt.code)
		}
		if !strings.HasSuffix(out.String(), "\n"+tt.want+"\n") {
			t.Errorf("%s: ends with %q, want %q", resultNames[tt.result], out.String(), tt.want)
		}
	}
}

func TestUnformatted(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]string{
		"good.go":            "package a\n",
		"bad.go":             "package  a\n",
		"broken.go":          "package\n",
		"testdata/ignore.go": "package  a\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := unformatted(dir)
	if !strings.Contains(got, "bad.go is not formatted") || !strings.Contains(got, "broken.go: ") {
		t.Errorf("overlooked something: %q", got)
	}
	if strings.Contains(got, "good.go") || strings.Contains(got, "ignore.go") {
		t.Errorf("complains of too much: %q", got)
	}
}
