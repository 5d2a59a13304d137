package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

func TestScannerSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hunter2 hunter2 hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := config.Default()
	good.ScannerAdapter, good.ScannerAdapterTokenFile = true, file
	good.ScannerAdapterRegistries = []string{"Harbor.example", "http://core:8080"}
	good.SecondOpinion, good.SecondOpinionToken = "clair+https://clair.example", "hunter2"
	good.SecondOpinionRegistry = "https://gatehouse.example:5000"
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	if token, err := good.AdapterToken(); err != nil || token != "hunter2 hunter2 hunter2" {
		t.Errorf("%q %v", token, err)
	}
	if got := strings.Join(good.AdapterRegistries(), " "); got != "https://harbor.example http://core:8080" {
		t.Errorf("registries %s", got)
	}
	for name, change := range map[string]func(*config.Config){
		"no token":            func(c *config.Config) { c.ScannerAdapterTokenFile = "" },
		"two tokens":          func(c *config.Config) { c.ScannerAdapterToken = "hunter2 hunter2 hunter2" },
		"a short token":       func(c *config.Config) { c.ScannerAdapterTokenFile, c.ScannerAdapterToken = "", "hunter2" },
		"no registry":         func(c *config.Config) { c.ScannerAdapterRegistries = nil },
		"a path":              func(c *config.Config) { c.ScannerAdapterRegistries = []string{"harbor.example/library"} },
		"all registries":      func(c *config.Config) { c.ScannerAdapterRegistries = []string{"*"} },
		"credentials":         func(c *config.Config) { c.ScannerAdapterRegistries = []string{"u:p@harbor.example"} },
		"two opinion tokens":  func(c *config.Config) { c.SecondOpinionTokenFile = file },
		"an unknown scanner":  func(c *config.Config) { c.SecondOpinion = "trivy+https://hunter2.example" },
		"a registry's path":   func(c *config.Config) { c.SecondOpinionRegistry = "https://gatehouse.example/v2" },
		"a registry's scheme": func(c *config.Config) { c.SecondOpinionRegistry = "gatehouse.example" },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good.ScannerAdapterToken = "hunter2"
	var b strings.Builder
	if err := config.Print(&b, good); err != nil || strings.Contains(b.String(), "hunter2") {
		t.Errorf("a token is printed: %v\n%s", err, b.String())
	}
}
