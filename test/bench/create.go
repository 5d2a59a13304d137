package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	createRounds = "500x"
	createShare  = 0.25 // of what policy-controller adds
)

var createMetric = regexp.MustCompile(`([0-9.e+]+) ((?:bare|gatehouse|policy-controller)-(?:digest|tag))-(p50|p99)-ms`)

// measureCreate runs the benchmark of package e2e: what our webhooks, and those of
// policy-controller, add to the creation of a Pod on a real kube-apiserver.
func measureCreate(ctx context.Context, b *bench) ([]row, error) {
	env := append(os.Environ(), "CGO_ENABLED=0", "GATEHOUSE_BENCH_ALONE=1")
	for _, name := range []string{"etcd", "kube-apiserver", "cosign", "policy-controller"} {
		t, err := tool.Lookup(name)
		if err != nil {
			return nil, err
		}
		path, err := t.Ensure(ctx, b.root, b.log)
		if err != nil {
			return nil, err
		}
		env = append(env, t.Env()+"="+path)
	}
	dir := filepath.Join(b.root, "test", "e2e")
	binary := filepath.Join(b.work, "e2e.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, ".")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "PWD="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test -c ./test/e2e: %w: %s", err, out[max(0, len(out)-500):])
	}
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", "^BenchmarkPodCreate$", "-test.benchtime", createRounds, "-test.timeout", "15m")
	cmd.Dir, cmd.Env = dir, append(env, "PWD="+dir)
	out, err := outputAlone(cmd)
	if err != nil {
		return nil, fmt.Errorf("BenchmarkPodCreate: %w: %s", err, out[max(0, len(out)-1500):])
	}
	return createRows(string(out))
}

// createRows reads what the benchmark has printed.
func createRows(out string) (rows []row, err error) {
	ms := map[string]float64{}
	for _, m := range createMetric.FindAllStringSubmatch(out, -1) {
		if ms[m[2]+" "+m[3]], err = strconv.ParseFloat(m[1], 64); err != nil {
			return nil, err
		}
	}
	for _, by := range []string{"digest", "tag"} {
		for _, p := range []string{"p50", "p99"} {
			at := "-" + by + " " + p
			bare, ours, theirs := ms["bare"+at], ms["gatehouse"+at], ms["policy-controller"+at]
			if bare == 0 || ours == 0 || theirs == 0 {
				return nil, fmt.Errorf("the benchmark says nothing of %s by %s: %s", p, by, out[max(0, len(out)-500):])
			}
			if theirs <= bare {
				return nil, fmt.Errorf("%s by %s: a Pod takes %.4g ms with policy-controller and %.4g ms without: the machine is too busy to tell", p, by, theirs, bare)
			}
			what := "what the webhooks add to the create of a Pod with an image by " + by + ", beside policy-controller, " + p
			ratio := under(what, max(0, ours-bare)/(theirs-bare), createShare, "×")
			if by == "tag" { // told, and no limit
				ratio = row{what: "— " + strings.TrimPrefix(what, "what the webhooks add to the create of "), measured: ratio.measured}
			}
			rows = append(rows, ratio,
				row{what: "— a bare create, ours adds, theirs adds", measured: fmt.Sprintf("%.3g ms, %.3g ms, %.3g ms", bare, ours-bare, theirs-bare)})
		}
	}
	return rows, nil
}
