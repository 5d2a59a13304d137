package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	scanRounds     = 5 // odd
	firstLookCPU   = 0.9
	firstLookWall  = 0.7
	firstLookSyft  = 0.35
	secondLookWall = 1.0 / 3
)

// scanner is a program that looks into an image, as a whole process.
type scanner struct {
	name  string
	cache string // its directory, which a first look finds empty
	run   func(cache string) *exec.Cmd
	cold  []used
	warm  []used
}

// measureScan lets Trivy and syft write an SBOM of a Debian image, which is all
// that they can do without their databases, and lets gatehouse look for
// packages, secrets and misconfiguration and match what it finds: first with
// empty caches, then again.
func measureScan(ctx context.Context, b *bench) ([]row, error) {
	layer, err := debianLayer(ctx, b)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.work, "scan")
	image := filepath.Join(dir, "layout")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := writeLayout(image, layer); err != nil {
		return nil, err
	}
	ours, err := ourScanner(ctx, b, dir, image)
	if err != nil {
		return nil, err
	}
	trivy, err := trivyScanner(ctx, b, dir, image)
	if err != nil {
		return nil, err
	}
	syft, err := syftScanner(ctx, b, dir, image)
	if err != nil {
		return nil, err
	}
	all := []*scanner{ours, trivy, syft}
	for round := range scanRounds {
		for i := range all { // in turning order
			if err := all[(i+round)%len(all)].look(); err != nil {
				return nil, err
			}
		}
	}
	return scanRows(ours, trivy, syft), nil
}

// look runs the scanner with an empty cache, then with the one it has filled.
func (s *scanner) look() error {
	if err := os.RemoveAll(s.cache); err != nil {
		return err
	}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return err
	}
	for _, to := range []*[]used{&s.cold, &s.warm} {
		u, err := runUsed(s.run(s.cache))
		if err != nil {
			return err
		}
		*to = append(*to, u)
	}
	return nil
}

func scanRows(ours, trivy, syft *scanner) []row {
	cpu := func(u used) time.Duration { return u.cpu }
	wall := func(u used) time.Duration { return u.wall }
	rows := []row{
		under("first look at a Debian image, packages, secrets, misconfiguration: CPU against "+trivy.name+"'s package list", times(ours.cold, trivy.cold, cpu), firstLookCPU, "x"),
		under("— wall against "+trivy.name, times(ours.cold, trivy.cold, wall), firstLookWall, "x"),
		under("— CPU against "+syft.name, times(ours.cold, syft.cold, cpu), firstLookSyft, "x"),
		under("second look: wall against "+trivy.name, times(ours.warm, trivy.warm, wall), secondLookWall, "x"),
	}
	for _, s := range []*scanner{ours, trivy, syft} {
		rows = append(rows, row{
			what: fmt.Sprintf("— %s, first; second, median of %d", s.name, scanRounds),
			measured: fmt.Sprintf("%.2f s wall, %.2f s CPU, %d MiB peak; %d ms wall, %d ms CPU",
				mid(s.cold, wall).Seconds(), mid(s.cold, cpu).Seconds(), peak(s.cold)>>20, mid(s.warm, wall).Milliseconds(), mid(s.warm, cpu).Milliseconds()),
		})
	}
	return rows
}

func mid(list []used, of func(used) time.Duration) time.Duration {
	var all []time.Duration
	for _, u := range list {
		all = append(all, of(u))
	}
	return median(all)
}

func times(a, b []used, of func(used) time.Duration) float64 {
	return mid(a, of).Seconds() / mid(b, of).Seconds()
}

func peak(list []used) (most int64) {
	for _, u := range list {
		most = max(most, u.rssMax)
	}
	return most
}

// ourScanner matches by one advisory of each of a thousand made-up packages and
// one real one, so that there is something to look up.
func ourScanner(ctx context.Context, b *bench, dir, image string) (*scanner, error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	db := filepath.Join(dir, "advisories.db")
	records := filepath.Join(dir, "records.json")
	if err := writeRecords(records); err != nil {
		return nil, err
	}
	if _, err := runUsed(exec.CommandContext(ctx, binary, "db", "import", "--db", db, records)); err != nil {
		return nil, err
	}
	report := filepath.Join(dir, "ours.json")
	return &scanner{name: "gatehouse", cache: filepath.Join(dir, "cache-gatehouse"), run: func(cache string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary, "image", "--input", image, "--db", db, "--scanners", "vuln,secret,misconfig",
			"--quiet", "--format", "json", "--output", report)
		cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache)
		return cmd
	}}, nil
}

func writeRecords(path string) error {
	type object = map[string]any
	var list []object
	add := func(id, name string) {
		list = append(list, object{
			"id": id, "modified": "2026-01-01T00:00:00Z", "affected": []object{{
				"package": object{"ecosystem": "Debian:12", "name": name},
				"ranges":  []object{{"type": "ECOSYSTEM", "events": []object{{"introduced": "0"}, {"fixed": "999"}}}},
			}},
		})
	}
	for i := range 1000 {
		add(fmt.Sprintf("CVE-2026-%d", 10000+i), fmt.Sprintf("made-up-%d", i))
	}
	add("CVE-2026-9999", "glibc")
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func trivyScanner(ctx context.Context, b *bench, dir, image string) (*scanner, error) {
	binary, version, err := b.peerTool(ctx, "trivy")
	if err != nil {
		return nil, err
	}
	return &scanner{name: "Trivy " + version, cache: filepath.Join(dir, "cache-trivy"), run: func(cache string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary, "image", "--input", image, "--cache-dir", cache, "--format", "spdx-json", "--offline-scan",
			"--skip-version-check", "--disable-telemetry", "--quiet", "--output", filepath.Join(dir, "trivy.json"))
		cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache)
		return cmd
	}}, nil
}

func syftScanner(ctx context.Context, b *bench, dir, image string) (*scanner, error) {
	binary, version, err := b.peerTool(ctx, "syft")
	if err != nil {
		return nil, err
	}
	return &scanner{name: "syft " + version, cache: filepath.Join(dir, "cache-syft"), run: func(cache string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary, "scan", "oci-dir:"+image, "-q", "-o", "json="+filepath.Join(dir, "syft.json"))
		cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false", "XDG_CACHE_HOME="+cache)
		return cmd
	}}, nil
}

// peerTool builds a foreign scanner, or finds it built.
func (b *bench) peerTool(ctx context.Context, name string) (binary, version string, err error) {
	t, err := tool.Lookup(name)
	if err != nil {
		return "", "", err
	}
	if binary, err = t.Ensure(ctx, b.root, b.log); err != nil {
		return "", "", err
	}
	version, err = t.Version(b.root)
	return binary, version, err
}
