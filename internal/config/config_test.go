package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// load reads a file as a command does.
func load(path string, getenv func(string) string) (config.Config, error) {
	f, err := config.ReadFile(path, []string{"server", "severity"})
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(f, getenv)
}

func TestFileThenEnvironment(t *testing.T) {
	path := write(t, "listen: 127.0.0.1:6000\nhostnames: [a.example, b.example]\nanonymous-pull: true\n")
	env := map[string]string{"GATEHOUSE_LISTEN": "127.0.0.1:7000", "GATEHOUSE_ANONYMOUS_PULL": "false", "GATEHOUSE_POLICY": "x.yaml,y.rego"}
	c, err := load(path, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:7000" || c.AnonymousPull || len(c.Hostnames) != 2 || len(c.Policy) != 2 || c.Data != "./gatehouse-data" {
		t.Errorf("%+v", c)
	}
}

func TestUnknownKeyNamesTheNearest(t *testing.T) {
	_, err := load(write(t, "data: x\nanonymus-pull: true\n"), noEnv)
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), ":2:") || !strings.Contains(gatehouse.HintOf(err), `"anonymous-pull"`) {
		t.Errorf("error %v, hint %q", err, gatehouse.HintOf(err))
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, text := range []string{
		"- a\n", "listen: [\n", "listen: {a: b}\n", "listen: [a, b]\n", "policy: [[a]]\n", "policy: [{a: b}]\n", "data: a\ndata: b\n",
		"data: a\n---\ndata: b\n", "insecure: maybe\n", "insecure:\n", "gc-grace: soon\n", "gc-grace: -1h\n", "scrub-rate: 10MB\n",
		"max-connections: -1\n", "trace-ratio: some\n", strings.Repeat("#", config.FileSizeMax+1),
	} {
		if _, err := load(write(t, text), noEnv); err == nil {
			t.Errorf("%.20q was accepted", text)
		}
	}
	if _, err := load(filepath.Join(t.TempDir(), "none.yaml"), noEnv); err == nil {
		t.Error("a named file that does not exist was accepted")
	}
	if _, err := load("", func(k string) string {
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
		"half of the webhook's TLS":   {func(c *config.Config) { c.AdmissionTLSCert = "c" }, "go together"},
		"log-format":                  {func(c *config.Config) { c.LogFormat = "xml" }, "text, json"},
		"access-log":                  {func(c *config.Config) { c.AccessLog = "some" }, "all, errors, off"},
		"two databases":               {func(c *config.Config) { c.Database, c.DatabaseFile = "postgres://h/d", "f" }, "both set"},
		"another database":            {func(c *config.Config) { c.Database = "mysql://u:hunter2@h/d" }, "postgres:// URL"},
		"keys in the storage URL":     {func(c *config.Config) { c.Storage = "s3://AK:hunter2@b/p" }, "credentials"},
		"another storage":             {func(c *config.Config) { c.Storage = "gs://b" }, "s3://"},
		"S3":                          {func(c *config.Config) { c.Storage = "s3://b/p?endpoint=https://h:9000&path-style=true" }, ""},
		"a path for a registry":       {func(c *config.Config) { c.AllowRegistries = []string{"ghcr.io/team"} }, "name of a registry"},
		"registries":                  {func(c *config.Config) { c.AllowRegistries = []string{"ghcr.io", "*.example.com", "h:5000"} }, ""},
		"an address for a range":      {func(c *config.Config) { c.AllowPrivate = []string{"10.0.0.1"} }, "address range"},
		"a path for a collector":      {func(c *config.Config) { c.TraceEndpoint = "collector:4318" }, "http"},
		"ratio":                       {func(c *config.Config) { c.TraceRatio = 2 }, "between 0 and 1"},
		"no webhook":                  {func(c *config.Config) { c.AdmissionListen = "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			c.change(&cfg)
			err := cfg.Check()
			if err != nil && strings.Contains(err.Error()+gatehouse.HintOf(err), "hunter2") {
				t.Errorf("the error shows a password: %v", err)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestOneFileForEveryCommand(t *testing.T) {
	c, err := load(write(t, "# of the whole house\nserver: https://r.example\nseverity: [HIGH]\ndata: /srv\n"), noEnv)
	if err != nil || c.Data != "/srv" {
		t.Errorf("%q, %v", c.Data, err)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n"} {
		if _, err := load(write(t, empty), noEnv); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestValuesOfAllForms(t *testing.T) {
	c, err := load(write(t, `
gc-grace: 1d12h
tag-restore: 30d
drain-time: 5s
scrub-rate: 50MiB
max-connections: 10
trace-ratio: 0.25
gc-untagged: false
policy: one.yaml
data: 010
`), func(k string) string { return map[string]string{"GATEHOUSE_SCRUB_PERIOD": "0s"}[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.GCGrace != 36*time.Hour || c.TagRestore != 720*time.Hour || c.DrainTime != 5*time.Second || c.ScrubRate != 50<<20 ||
		c.MaxConnections != 10 || c.TraceRatio != 0.25 || c.GCUntagged || len(c.Policy) != 1 || c.Data != "010" || c.ScrubPeriod != 0 {
		t.Errorf("%+v", c)
	}
}

func TestPrintIsReadBackAndShowsNoSecret(t *testing.T) {
	c := config.Default()
	c.Policy, c.GCGrace, c.ScrubRate, c.Insecure = []string{"a, b.yaml", "c"}, 90*time.Minute, 3<<30, true
	c.Database = "postgres://gatehouse:hunter2@db:5432/g?sslmode=verify-full&sslpassword=hunter2"
	c.Storage = "s3://b/p?endpoint=https://h&secret-access-key=hunter2"
	c.TraceEndpoint = "http://u:hunter2@h"
	var b strings.Builder
	if err := config.Print(&b, c); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), "gatehouse:REDACTED@db:5432") {
		t.Errorf("printed:\n%s", b.String())
	}
	got, err := load(write(t, b.String()), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	// A nil list and an empty one are the same setting.
	if fmt.Sprint(got) != fmt.Sprint(c.Redacted()) {
		t.Errorf("read back\n%+v, want\n%+v", got, c.Redacted())
	}
	for _, secret := range []string{
		"postgres://u:hunter2@[bad", "hunter2%zz", "postgres://u@h/d?password=hunter2;x", "postgres://u@h/d?password=hunter2%zz",
		"host=h password=hunter2", "postgres:u:hunter2@h", "postgres://u:1#hunter2@h/d",
	} {
		c.Database = secret
		if r := c.Redacted(); strings.Contains(r.Database, "hunter2") {
			t.Errorf("%q is shown as %q", secret, r.Database)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	file := write(t, "postgres://u:p@h/d\n")
	env := map[string]string{"GATEHOUSE_DATABASE_FILE": file, "A_FILE": file, "BOTH": "x", "BOTH_FILE": file, "GONE_FILE": file + ".gone", "EMPTY_FILE": write(t, "\n")}
	getenv := func(k string) string { return env[k] }
	c, err := load(write(t, ""), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if url, err := c.DatabaseURL(); err != nil || url != "postgres://u:p@h/d" {
		t.Errorf("%q, %v", url, err)
	}
	if s, err := config.Secret(getenv, "A"); err != nil || s != "postgres://u:p@h/d" {
		t.Errorf("%q, %v", s, err)
	}
	for _, name := range []string{"BOTH", "GONE", "EMPTY"} {
		if _, err := config.Secret(getenv, name); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.DatabaseFile = write(t, "hunter2")
	if _, err := c.DatabaseURL(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a file without a URL: %v", err)
	}
}

func TestSigstoreSettings(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		want   string // a part of the error; empty: none
	}{
		{"on", func(c *config.Config) { c.Sigstore = true }, ""},
		{"on, with PostgreSQL", func(c *config.Config) {
			c.Sigstore, c.Database, c.SigstorePassphraseFile, c.ExternalURL = true, "postgres://db.example/x", "file", "https://registry.example"
		}, ""},
		{"nothing seals what lies in PostgreSQL", func(c *config.Config) {
			c.Sigstore, c.Database, c.ExternalURL = true, "postgres://db.example/x", "https://registry.example"
		}, "nothing seals"},
		{"a key of a service, with PostgreSQL", func(c *config.Config) {
			c.Sigstore, c.Database, c.SigstoreSealKey, c.ExternalURL = true, "postgres://db.example/x", "awskms:///k", "https://registry.example"
		}, ""},
		{"a key and a passphrase", func(c *config.Config) { c.SigstoreSealKey, c.SigstorePassphraseFile = "awskms:///k", "file" }, "both set"},
		{"no URL for replicas", func(c *config.Config) {
			c.Sigstore, c.DatabaseFile, c.SigstorePassphraseFile = true, "file", "file"
		}, "one URL"},
		{"a passphrase twice", func(c *config.Config) { c.SigstorePassphrase, c.SigstorePassphraseFile = "0123456789abcdef", "file" }, "both set"},
		{"a short passphrase", func(c *config.Config) { c.SigstorePassphrase = "hunter2" }, "less than 16"},
		{"no budgets", func(c *config.Config) { c.SigstoreLogBudget, c.SigstoreLogAddressBudget = 0, 0 }, ""},
		{"a small budget", func(c *config.Config) { c.SigstoreLogBudget = 1000 }, "sigstore-log-budget"},
		{"a negative budget", func(c *config.Config) { c.SigstoreLogAddressBudget = -1 }, "sigstore-log-address-budget"},
		{"a URL with a path", func(c *config.Config) { c.ExternalURL = "https://registry.example/x" }, "external-url"},
		{"a URL with a password", func(c *config.Config) { c.ExternalURL = "https://a:hunter2@registry.example" }, "external-url"},
		{"no URL", func(c *config.Config) { c.ExternalURL = "registry.example" }, "external-url"},
	} {
		cfg := config.Default()
		c.change(&cfg)
		err := cfg.Check()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	cfg := config.Default()
	cfg.SigstorePassphrase = "0123456789abcdef"
	if cfg.Redacted().SigstorePassphrase == cfg.SigstorePassphrase {
		t.Error("the passphrase is shown")
	}
}
