package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

func noEnv(string) string { return "" }

// TestFailedFirstStartLeavesNoAccount: who repairs the settings and starts
// again must be shown the password then.
func TestFailedFirstStartLeavesNoAccount(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	put(t, bad, []byte("kind: ["))
	for name, breakIt := range map[string]func(*config.Config){
		"a policy":      func(c *config.Config) { c.Policy = []string{bad} },
		"a certificate": func(c *config.Config) { c.TLSCert, c.TLSKey = bad, bad },
		"an address":    func(c *config.Config) { c.Listen = "127.0.0.1:99999" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Data, cfg.Listen, cfg.AdmissionListen = t.TempDir(), "127.0.0.1:0", ""
			broken := cfg
			breakIt(&broken)
			if _, err := server.New(t.Context(), broken, noEnv, slog.New(slog.DiscardHandler)); err == nil {
				t.Fatal("it started")
			}
			if _, err := os.Stat(filepath.Join(cfg.Data, "initial-admin-password")); err == nil {
				t.Error("the start that failed left a password")
			}
			s, err := server.New(t.Context(), cfg, noEnv, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if s.AdminPassword == "" {
				t.Error("the start that succeeded shows no password")
			}
			if err := runAndStop(t, s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStaleReadyFile: scripts wait for the file, so that an earlier server's
// must be gone before this one answers.
func TestStaleReadyFile(t *testing.T) {
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen = t.TempDir(), "127.0.0.1:0", ""
	cfg.ReadyFile = filepath.Join(t.TempDir(), "ready")
	put(t, cfg.ReadyFile, []byte("http://127.0.0.1:1\n"))
	s, err := server.New(t.Context(), cfg, noEnv, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cfg.ReadyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before the server answers: %v", err)
	}
	if err := runAndStop(t, s); err != nil {
		t.Error(err)
	}
}

func TestOpenContent(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	digest := r.push("a/b:1")
	cfg := config.Default()
	cfg.Data = dir
	if _, err := server.OpenContent(t.Context(), cfg, noEnv); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("beside a server: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	d, err := server.OpenContent(t.Context(), cfg, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Content.ManifestByTag(t.Context(), "a/b", "1")
	if err != nil || string(m.Digest) != digest {
		t.Errorf("%v, %v", m, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	start(t, dir, nil) // the directory is free again
}

// TestOneInstallationPerPlace: a second database on the same bucket and prefix
// must not come so far that it could delete what it does not know.
func TestOneInstallationPerPlace(t *testing.T) {
	b := s3test.Start(t)
	first, second := config.Default(), config.Default()
	first.Data, second.Data = t.TempDir(), t.TempDir()
	first.Storage, second.Storage = b.URL, b.URL
	for range 2 { // it knows itself again
		d, err := server.OpenContent(t.Context(), first, b.Getenv)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := server.OpenContent(t.Context(), second, b.Getenv); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("another database on the same bucket and prefix: %v, %v", d, err)
	}
	second.Storage = strings.Replace(b.URL, b.Name+"/", b.Name+"/second-", 1)
	d, err := server.OpenContent(t.Context(), second, b.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestPoliciesAnswerWithWarnings: what lint would say is not lost on who puts a
// policy through the API.
func TestPoliciesAnswerWithWarnings(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	var answer struct {
		Name     string
		Warnings []struct{ Message string }
	}
	if err := json.Unmarshal([]byte(r.must("PUT", "/api/v1/policies/good.yaml", scanRule)), &answer); err != nil || answer.Name != "good.yaml" || answer.Warnings == nil {
		t.Errorf("%v: %+v", err, answer)
	}
	warned := r.must("PUT", "/api/v1/policies/hub.yaml", signedRule(t, "docker.io/library/**"))
	if err := json.Unmarshal([]byte(warned), &answer); err != nil || len(answer.Warnings) == 0 || !strings.Contains(answer.Warnings[0].Message, "index.docker.io") {
		t.Errorf("%v: %s", err, warned)
	}
}

// runAndStop runs a server for no time.
func runAndStop(t *testing.T, s *server.Server) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return s.Run(ctx)
}
