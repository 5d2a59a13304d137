package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// Limits of verifying one signature that lies in the local store.
const (
	verifyKeyLimitMS     = 1
	verifyKeylessLimitMS = 1.5
	verifyRounds         = "2000x"
)

var verifyLine = regexp.MustCompile(`(?m)^BenchmarkLocalStore/(\S+?)(?:-\d+)?\s+\d+\s.*?([0-9.e+]+) p50-ns`)

// measureVerify runs the benchmark of package verify, which needs authorities
// whose keys it holds: medians of signatures in our own registry on SQLite, with
// every check made anew, and with what was checked remembered.
func measureVerify(ctx context.Context, b *bench) ([]row, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkLocalStore$", "-benchtime", verifyRounds, "./internal/verify")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "PWD="+b.root)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test ./internal/verify: %w: %s", err, out[max(0, len(out)-500):])
	}
	ms := verifyMedians(string(out))
	var rows []row
	for _, r := range []struct {
		name, what string
		limit      float64
	}{
		{"key", "one key signature, from the local store, p50", verifyKeyLimitMS},
		{"keyless", "one keyless bundle (SCT, Rekor v2, timestamp), p50", verifyKeylessLimitMS},
		{"keyless-rekor-v1", "one keyless bundle (SCT, Rekor v1: promise and proof), p50", verifyKeylessLimitMS},
	} {
		fresh, known := ms[r.name+"/fresh"], ms[r.name+"/remembered"]
		if fresh == 0 || known == 0 {
			return rows, fmt.Errorf("the benchmark does not measure %s", r.name)
		}
		rows = append(rows, under(r.what, fresh, r.limit, "ms"), row{what: "— checked before", measured: fmt.Sprintf("%.4g ms", known)})
	}
	return rows, nil
}

// verifyMedians reads milliseconds by name of the benchmark.
func verifyMedians(out string) map[string]float64 {
	ms := map[string]float64{}
	for _, m := range verifyLine.FindAllStringSubmatch(out, -1) {
		if ns, err := strconv.ParseFloat(m[2], 64); err == nil {
			ms[m[1]] = ns / 1e6
		}
	}
	return ms
}
