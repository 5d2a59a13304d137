// Package tool builds the foreign programs that the tests and the benchmarks
// run beside Gatehouse: other registries' clients, cosign, a Kubernetes API
// server, another scanner. In goes the name of a program, out comes the path of
// its binary.
//
// The version of each is the one that the module under test/tools/<dir> pins,
// go.sum and all. Binaries are cached outside the clone, one folder per version,
// so that only the first run on a machine pays for a build. This package never
// installs anything into the system.
package tool

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tool is one program that is built from its own Go module, or one file of such a
// module that tests read: a schema.
type Tool struct {
	Name    string   // of the program, and of its folder in the cache
	Dir     string   // of the module that pins it, under test/tools
	Module  string   // whose version counts
	Package string   // main package
	File    string   // instead of Package: the file's path in the module
	Stages  []string // who needs it: "test", "e2e", "bench"
	// LDFlags is added to "-s -w"; %s stands for the version.
	LDFlags  string
	BuildEnv []string // of the build: "GOEXPERIMENT=jsonv2"
}

// kubeVersion makes the API server report its version, which the module build
// would otherwise leave at v0.0.0-master.
const kubeVersion = "-X k8s.io/component-base/version.gitVersion=%[1]s " +
	"-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35"

// Tools is every program that can be asked for.
func Tools() []Tool {
	return []Tool{
		{Name: "staticcheck", Dir: "staticcheck", Module: "honnef.co/go/tools",
			Package: "honnef.co/go/tools/cmd/staticcheck", Stages: []string{"test"}},
		{Name: "crane", Dir: "crane", Module: "github.com/google/go-containerregistry",
			Package: "github.com/google/go-containerregistry/cmd/crane", Stages: []string{"test", "e2e"}},
		{Name: "regctl", Dir: "regctl", Module: "github.com/regclient/regclient",
			Package: "github.com/regclient/regclient/cmd/regctl", Stages: []string{"test", "e2e"}},
		{Name: "versitygw", Dir: "versitygw", Module: "github.com/versity/versitygw",
			Package: "github.com/versity/versitygw/cmd/versitygw", Stages: []string{"test", "e2e"}},
		{Name: "trivydb-fixture", Dir: "trivydb", Module: "github.com/aquasecurity/trivy-db",
			Package: "github.com/gatehouse-dev/gatehouse/test/tools/trivydb", Stages: []string{"test"}},
		{Name: "sarif-schema", Dir: "sarif", Module: "github.com/owenrumney/go-sarif/v3",
			File: "pkg/report/v210/sarif/schema.go", Stages: []string{"test"}},
		{Name: "spdx-schema", Dir: "syft", Module: "github.com/anchore/syft",
			File: "schema/spdx-json/spdx-schema-2.3.json", Stages: []string{"test"}},
		{Name: "etcd", Dir: "etcd", Module: "go.etcd.io/etcd/server/v3",
			Package: "go.etcd.io/etcd/server/v3", Stages: []string{"e2e", "bench"}},
		{Name: "cosign", Dir: "cosign", Module: "github.com/sigstore/cosign/v3",
			Package: "github.com/sigstore/cosign/v3/cmd/cosign", Stages: []string{"e2e", "bench"}},
		{Name: "cosign2", Dir: "cosign2", Module: "github.com/sigstore/cosign/v2",
			Package: "github.com/sigstore/cosign/v2/cmd/cosign", Stages: []string{"e2e"}},
		{Name: "notation", Dir: "notation", Module: "github.com/notaryproject/notation",
			Package: "github.com/notaryproject/notation/cmd/notation", Stages: []string{"e2e"}},
		{Name: "kube-apiserver", Dir: "kube", Module: "k8s.io/kubernetes",
			Package: "k8s.io/kubernetes/cmd/kube-apiserver", Stages: []string{"e2e", "bench"}, LDFlags: kubeVersion},
		{Name: "kube-controller-manager", Dir: "kube", Module: "k8s.io/kubernetes",
			Package: "k8s.io/kubernetes/cmd/kube-controller-manager", Stages: []string{"e2e"}, LDFlags: kubeVersion},
		{Name: "helm", Dir: "helm", Module: "helm.sh/helm/v3",
			Package: "helm.sh/helm/v3/cmd/helm", Stages: []string{"e2e"}},
		{Name: "syft", Dir: "syft", Module: "github.com/anchore/syft",
			Package: "github.com/anchore/syft/cmd/syft", Stages: []string{"e2e", "bench"}},
		{Name: "trivy", Dir: "trivy", Module: "github.com/aquasecurity/trivy",
			Package: "github.com/aquasecurity/trivy/cmd/trivy", Stages: []string{"bench"},
			LDFlags: "-X github.com/aquasecurity/trivy/pkg/version/app.ver=%s", BuildEnv: []string{"GOEXPERIMENT=jsonv2"}},
		{Name: "policy-controller", Dir: "policy-controller", Module: "github.com/sigstore/policy-controller",
			Package: "github.com/sigstore/policy-controller/cmd/webhook", Stages: []string{"bench"}},
		{Name: "registry", Dir: "registry", Module: "github.com/distribution/distribution/v3",
			Package: "github.com/distribution/distribution/v3/cmd/registry", Stages: []string{"bench"}},
	}
}

// For returns the tools that a stage needs.
func For(stage string) []Tool {
	return slices.DeleteFunc(Tools(), func(t Tool) bool { return !slices.Contains(t.Stages, stage) })
}

// Lookup finds a tool by name.
func Lookup(name string) (Tool, error) {
	var names []string
	for _, t := range Tools() {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return Tool{}, fmt.Errorf("no tool is called %q; there are %s", name, strings.Join(names, ", "))
}

// Env is the environment variable through which tests learn the path of the
// binary: GATEHOUSE_KUBE_APISERVER for kube-apiserver.
func (t Tool) Env() string {
	return "GATEHOUSE_" + strings.ToUpper(strings.ReplaceAll(t.Name, "-", "_"))
}

// Version reads the pinned version ("v1.35.4") from the tool's go.mod. root is
// the folder of the main module.
func (t Tool) Version(root string) (string, error) {
	path := filepath.Join(root, "test", "tools", t.Dir, "go.mod")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(t.Module) + `\s+(v\S+)`)
	m := line.FindSubmatch(b)
	if m == nil {
		return "", fmt.Errorf("%s does not require %s", path, t.Module)
	}
	return string(m[1]), nil
}

// own tells programs of ours apart, which are kept under test/tools because they
// need a foreign module.
const own = "github.com/gatehouse-dev/gatehouse/test/tools/"

// revision tells the states of a program of ours apart, which has no version:
// it is "" for a foreign one.
func (t Tool) revision(root string) (string, error) {
	dir, ok := strings.CutPrefix(t.Package, own)
	if !ok {
		return "", nil
	}
	files, err := filepath.Glob(filepath.Join(root, "test", "tools", dir, "*.go"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("there is no source of %s (%v)", t.Package, err)
	}
	sum := sha256.New()
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		sum.Write(b)
	}
	return fmt.Sprintf("-%x", sum.Sum(nil)[:4]), nil
}

// CacheDir is where built tools and downloaded inputs are kept between clones:
// ${XDG_CACHE_HOME:-$HOME/.cache}/gatehouse-test.
func CacheDir() (string, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gatehouse-test"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("neither XDG_CACHE_HOME nor HOME is set: %w", err)
	}
	return filepath.Join(home, ".cache", "gatehouse-test"), nil
}

// ModuleRoot walks up from dir to the folder of the main module.
func ModuleRoot(dir string) (string, error) {
	for at := dir; ; {
		b, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/gatehouse-dev/gatehouse\n") {
			return at, nil
		}
		up := filepath.Dir(at)
		if up == at {
			return "", fmt.Errorf("%s lies in no clone of gatehouse", dir)
		}
		at = up
	}
}
