package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var out bytes.Buffer
	printTable(&out, []row{
		under("fast enough", 299.9, 300, "ms"),
		under("too slow", 300, 300, "ms"),
		atLeast("fast enough", 60, 60, "%"),
		atLeast("too slow", 59.9, 60, "%"),
		{what: "— beside it", measured: "two\nlines"},
	})
	_, got, _ := strings.Cut(out.String(), "\n\n")
	want := `| figure      | measured  | limit    |        |
|-------------|-----------|----------|--------|
| fast enough | 299.9 ms  | < 300 ms | ok     |
| too slow    | 300 ms    | < 300 ms | MISSED |
| fast enough | 60 %      | >= 60 %  | ok     |
| too slow    | 59.9 %    | >= 60 %  | MISSED |
| — beside it | two lines |          |        |
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestMemory reads the test's own process.
func TestMemory(t *testing.T) {
	rss, peak, err := memory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if rss < 1<<20 || peak < rss {
		t.Errorf("rss %d, peak %d bytes: this process is larger than that", rss, peak)
	}
	if _, _, err := memory(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestVerifyMedians(t *testing.T) {
	got := verifyMedians("goos: linux\nBenchmarkLocalStore/key/fresh-2         \t     500\t    274286 ns/op\t    244153 p50-ns\nBenchmarkLocalStore/keyless/remembered         \t     500\t    1 ns/op\t    1.5e+06 p50-ns\nPASS\n")
	if got["key/fresh"] != 0.244153 || got["keyless/remembered"] != 1.5 || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestCreateRows(t *testing.T) {
	line := "BenchmarkPodCreate-2 \t 500\t 1 ns/op"
	for _, by := range []string{"digest", "tag"} {
		line += fmt.Sprintf("\t 3.5 bare-%[1]s-p50-ms\t 9 bare-%[1]s-p99-ms\t 4.5 gatehouse-%[1]s-p50-ms\t 19 gatehouse-%[1]s-p99-ms\t %%s policy-controller-%[1]s-p50-ms\t 4.9e+01 policy-controller-%[1]s-p99-ms", by)
	}
	line = strings.Replace(line+"\nPASS\n", "%s", "23.5", 1) // by digest; by tag is to come
	rows, err := createRows(strings.Replace(line, "%s", "13.5", 1))
	if err != nil || len(rows) != 8 || rows[0].missed || rows[0].measured != "0.05 ×" || rows[4].measured != "0.1 ×" || !rows[2].missed || rows[2].measured != "0.25 ×" || rows[6].missed {
		t.Errorf("%+v, %v", rows, err)
	}
	for _, theirs := range []string{"", "3.5", "1"} { // nothing is said of it, or it adds nothing
		if rows, err := createRows(strings.Replace(line, "%s", theirs, 1)); err == nil {
			t.Errorf("%q: %+v", theirs, rows)
		}
	}
}
