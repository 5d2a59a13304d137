package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func noEnv(string) string { return "" }

func TestFileThenEnvironment(t *testing.T) {
	path := write(t, "listen: 127.0.0.1:6000\nhostnames: [a.example, b.example]\nanonymous-pull: true\n")
	env := map[string]string{"GATEHOUSE_LISTEN": "127.0.0.1:7000", "GATEHOUSE_ANONYMOUS_PULL": "false", "GATEHOUSE_POLICY": "x.yaml,y.rego"}
	c, err := config.Load(path, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:7000" || c.AnonymousPull || len(c.Hostnames) != 2 || len(c.Policy) != 2 || c.Data != "./gatehouse-data" {
		t.Errorf("%+v", c)
	}
}

func TestUnknownKeyNamesTheNearest(t *testing.T) {
	_, err := config.Load(write(t, "data: x\nanonymus-pull: true\n"), noEnv)
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), ":2:") || !strings.Contains(gatehouse.HintOf(err), `"anonymous-pull"`) {
		t.Errorf("error %v, hint %q", err, gatehouse.HintOf(err))
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, text := range []string{"- a\n", "listen: [\n", "listen: {a: b}\n", strings.Repeat("#", config.FileSizeMax+1)} {
		if _, err := config.Load(write(t, text), noEnv); err == nil {
			t.Errorf("%.20q was accepted", text)
		}
	}
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), noEnv); err == nil {
		t.Error("a named file that does not exist was accepted")
	}
	if _, err := config.Load("", func(k string) string {
		if k == "GATEHOUSE_INSECURE" {
			return "perhaps"
		}
		return ""
	}); err == nil {
		t.Error("GATEHOUSE_INSECURE=perhaps was accepted")
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   string // part of the error; empty = fine
	}{
		"default":                     {func(*config.Config) {}, ""},
		"beyond loopback without TLS": {func(c *config.Config) { c.Listen = "0.0.0.0:5000" }, "no TLS"},
		"empty host is every address": {func(c *config.Config) { c.Listen = ":5000" }, "no TLS"},
		"a name may be anywhere":      {func(c *config.Config) { c.Listen = "registry.example:5000" }, "no TLS"},
		"beyond loopback, insecure":   {func(c *config.Config) { c.Listen, c.Insecure = "0.0.0.0:5000", true }, ""},
		"beyond loopback with TLS":    {func(c *config.Config) { c.Listen, c.TLSCert, c.TLSKey = ":443", "c", "k" }, ""},
		"IPv6 loopback":               {func(c *config.Config) { c.Listen = "[::1]:5000" }, ""},
		"half of TLS":                 {func(c *config.Config) { c.TLSKey = "k" }, "go together"},
		"no port":                     {func(c *config.Config) { c.Listen = "localhost" }, "host:port"},
		"no-match":                    {func(c *config.Config) { c.NoMatch = "maybe" }, "deny, warn, allow"},
		"no webhook":                  {func(c *config.Config) { c.AdmissionListen = "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			c.change(&cfg)
			err := cfg.Check()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
