package version_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// pair is two versions with what a native tool says of them.
type pair struct{ a, b string }

// native is an ecosystem's own tool. answers gets pairs and returns, for each,
// "-1", "0", "1", or "x" where the tool takes one of them for no version.
type native struct {
	space   string
	zip     string // of real advisories in shared/data/osv
	answers func(t *testing.T, pairs []pair) []string
	// differs says for which pairs we go another way on purpose.
	differs func(p pair) bool
}

var natives = map[string]native{
	"dpkg":  {"Debian", "Debian.zip", perlDpkg, nil},
	"rpm":   {"AlmaLinux", "AlmaLinux.zip", rpmLua, nil},
	"npm":   {"npm", "npm.zip", npmSemver, nil},
	"cargo": {"crates.io", "crates.io.zip", npmSemver, nil}, // the same rules
	"go":    {"Go", "Go.zip", goSemver, nil},
	"pip":   {"PyPI", "PyPI.zip", pipPackaging, nil},
	"maven": {"Maven", "Maven.zip", mavenArtifact, nil},
	"ruby":  {"RubyGems", "RubyGems.zip", rubyGem, nil},
	"php": {"Packagist", "Packagist.zip", phpCompare, func(p pair) bool {
		// Composer's branches (1.x-dev) are newer than all of their versions; to
		// PHP x is a word that it does not know.
		return strings.Contains(p.a, "-x") != strings.Contains(p.b, "-x")
	}},
}

// nativePairs is how many pairs each tool is asked about.
const nativePairs = 6000

// TestNativeToolsAgree compares pairs of real versions, and of real ones with
// something appended, with what each ecosystem's own tool says of them.
func TestNativeToolsAgree(t *testing.T) {
	for name, n := range natives {
		t.Run(name, func(t *testing.T) {
			order, err := version.For(n.space)
			if err != nil {
				t.Fatal(err)
			}
			pairs := realPairs(t, n.zip)
			answers := n.answers(t, pairs)
			if len(answers) != len(pairs) {
				t.Fatalf("%d answers to %d pairs", len(answers), len(pairs))
			}
			compared := 0
			for i, p := range pairs {
				want, err := strconv.Atoi(answers[i])
				if err != nil || n.differs != nil && n.differs(p) {
					continue
				}
				compared++
				got, err := order.Compare(p.a, p.b)
				if err != nil || got != want {
					t.Errorf("%s against %s: %d (%v), the tool says %d", p.a, p.b, got, err, want)
				}
			}
			if compared < nativePairs/3 {
				t.Errorf("only %d of %d pairs were comparable", compared, len(pairs))
			}
			t.Logf("%d pairs agree", compared)
		})
	}
}

// tails are what is appended to real versions.
var tails = []string{
	"", "0", "1", ".0", ".1", "-1", "-0", "~rc1", "~", "^git1", "^", "+b1", "+1", "a", "b1", "rc1", "-rc.1", "-rc.2", "-alpha", ".el8_6", ".a", "-beta.11",
	"-SNAPSHOT", ".post1", ".dev2", "-p1", ".Final", "_p3", "-x.7", "+build.5", "-0.3.7", ".pre", "-1.module+el8.5.0+1+aa",
}

// realPairs takes versions from the published advisories in one file: mostly two
// of one package, whose order is not plain at once.
func realPairs(t *testing.T, name string) []pair {
	t.Helper()
	families := realVersions(t, name)
	random := rand.New(rand.NewPCG(1, 2))
	one := func(from []string) string { return from[random.IntN(len(from))] }
	var out []pair
	for range nativePairs {
		family := families[random.IntN(len(families))]
		p := pair{one(family), one(family)}
		switch random.IntN(5) {
		case 0:
			p.b = one(families[random.IntN(len(families))])
		case 1:
			p.b = p.a + one(tails)
		case 2:
			p.a, p.b = p.a+one(tails), p.b+one(tails)
		case 3:
			p.a, p.b = p.a+one(tails), p.a+one(tails)
		}
		if random.IntN(2) == 0 {
			p.a, p.b = p.b, p.a
		}
		out = append(out, p)
	}
	return out
}

// realVersions returns the versions of each package of a file.
func realVersions(t *testing.T, name string) [][]string {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(sharedData(t), "osv", name))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	byPackage := map[string]map[string]bool{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		var record struct {
			Affected []struct {
				Package  struct{ Name string }
				Versions []string
				Ranges   []struct{ Events []map[string]string }
			}
		}
		err = json.NewDecoder(r).Decode(&record)
		r.Close()
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		for _, a := range record.Affected {
			all := byPackage[a.Package.Name]
			if all == nil {
				all = map[string]bool{}
				byPackage[a.Package.Name] = all
			}
			for _, v := range a.Versions {
				all[v] = true
			}
			for _, r := range a.Ranges {
				for _, e := range r.Events {
					for _, v := range e {
						if v != "0" {
							all[v] = true
						}
					}
				}
			}
		}
	}
	var names []string
	for n := range byPackage {
		names = append(names, n)
	}
	slices.Sort(names)
	var out [][]string
	for _, n := range names {
		var list []string
		for v := range byPackage[n] {
			if !strings.ContainsAny(v, " \t\n\\'\"") && v != "" {
				list = append(list, v)
			}
		}
		slices.Sort(list)
		if len(list) > 0 {
			out = append(out, list)
		}
	}
	return out
}

// sharedData finds the folder of real advisories, which is no part of this
// project.
func sharedData(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared")
	}
	data := filepath.Join(dir, "data")
	if _, err := os.Stat(data); err != nil {
		t.Skip("shared/data is not here: " + dir)
	}
	return data
}

// tool finds a program, or skips the test by its name.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	return path
}

// ask puts pairs to a program as lines "A B" and returns its lines.
func ask(t *testing.T, pairs []pair, name string, args ...string) []string {
	t.Helper()
	var in, errs bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintf(&in, "%s %s\n", p.a, p.b)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stderr = &in, &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	return strings.Fields(string(out))
}

func perlDpkg(t *testing.T, pairs []pair) []string {
	perl := tool(t, "perl")
	if exec.Command(perl, "-MDpkg::Version", "-e", "1").Run() != nil {
		t.Skip("Dpkg::Version (libdpkg-perl) is not installed")
	}
	return ask(t, pairs, perl, "-MDpkg::Version", "-ne", `chomp; my ($a, $b) = split / /;
		my ($va, $vb) = (Dpkg::Version->new($a), Dpkg::Version->new($b));
		print $va->is_valid() && $vb->is_valid() ? version_compare($a, $b) : "x", "\n"`)
}

func rpmLua(t *testing.T, pairs []pair) []string {
	rpm := tool(t, "rpm")
	var in strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&in, "%s %s\n", p.a, p.b)
	}
	file := filepath.Join(t.TempDir(), "pairs")
	if err := os.WriteFile(file, []byte(in.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// Before 4.16 rpm compared no epochs and releases here.
	return ask(t, nil, rpm, "--eval", `%{lua:
		if rpm.vercmp("1:1-1", "2-1") ~= 1 then print("old") end
		for line in io.lines("`+file+`") do
			local a, b = string.match(line, "^(.-) (.*)$")
			print(rpm.vercmp(a, b) .. "\n")
		end}`)
}

func npmSemver(t *testing.T, pairs []pair) []string {
	node := tool(t, "node")
	root, err := exec.Command(tool(t, "npm"), "root", "-g").Output()
	if err != nil {
		t.Skip("npm does not tell where it is: ", err)
	}
	module := filepath.Join(strings.TrimSpace(string(root)), "npm", "node_modules", "semver")
	if _, err := os.Stat(module); err != nil {
		t.Skip("npm comes without semver here")
	}
	return ask(t, pairs, node, "-e", `const s = require(process.argv[1]);
		for (const l of require("fs").readFileSync(0, "utf8").trim().split("\n")) {
			const [a, b] = l.split(" ");
			console.log(s.valid(a) && s.valid(b) ? s.compare(a, b) : "x");
		}`, module)
}

func goSemver(_ *testing.T, pairs []pair) []string {
	var out []string
	for _, p := range pairs {
		a, b := "v"+strings.TrimPrefix(p.a, "v"), "v"+strings.TrimPrefix(p.b, "v")
		if !semver.IsValid(a) || !semver.IsValid(b) {
			out = append(out, "x")
			continue
		}
		out = append(out, strconv.Itoa(semver.Compare(a, b)))
	}
	return out
}

func pipPackaging(t *testing.T, pairs []pair) []string {
	python := tool(t, "python3")
	if exec.Command(python, "-c", "import pip._vendor.packaging.version").Run() != nil {
		t.Skip("python3 has no pip, which brings packaging")
	}
	return ask(t, pairs, python, "-c", `
import sys
from pip._vendor.packaging.version import Version, InvalidVersion
for line in sys.stdin:
    try:
        a, b = (Version(v) for v in line.split())
        print((a > b) - (a < b))
    except InvalidVersion:
        print("x")
`)
}

func mavenArtifact(t *testing.T, pairs []pair) []string {
	java := tool(t, "java")
	jars, err := filepath.Glob("/usr/share/maven/lib/maven-artifact-*.jar")
	if err != nil || len(jars) == 0 {
		t.Skip("maven is not installed")
	}
	lang, _ := filepath.Glob("/usr/share/maven/lib/commons-lang3*.jar")
	// It prints how each argument compares with the next.
	args := []string{"-cp", strings.Join(append(jars, lang...), ":"), "org.apache.maven.artifact.versioning.ComparableVersion"}
	for _, p := range pairs {
		args = append(args, p.a, p.b)
	}
	raw, err := exec.Command(java, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("java: %v\n%.2000s", err, raw)
	}
	var out []string
	nth := 0
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.HasPrefix(line, "   ") {
			continue
		}
		if nth++; nth%2 == 1 {
			out = append(out, map[string]string{"<": "-1", "==": "0", ">": "1"}[fields[1]])
		}
	}
	return out
}

func rubyGem(t *testing.T, pairs []pair) []string {
	return ask(t, pairs, tool(t, "ruby"), "-e", `STDIN.each_line do |l|
		a, b = l.split
		puts(Gem::Version.correct?(a) && Gem::Version.correct?(b) ? Gem::Version.new(a) <=> Gem::Version.new(b) : "x")
	end`)
}

func phpCompare(t *testing.T, pairs []pair) []string {
	return ask(t, pairs, tool(t, "php"), "-r", `while (($l = fgets(STDIN)) !== false) {
		[$a, $b] = explode(" ", trim($l));
		$v = "/^[vV]?[0-9]/";
		echo preg_match($v, $a) && preg_match($v, $b) ? version_compare(ltrim($a, "vV"), ltrim($b, "vV")) : "x", "\n";
	}`)
}
