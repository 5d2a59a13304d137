package secret_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

func TestConfig(t *testing.T) {
	token := "ghp_" + strings.Repeat("a1B2c3D4e", 4)
	doc := `{"config": {
		"Env": ["PATH=/usr/bin", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
			"MYSQL_ROOT_PASSWORD=letmein", "DB_PASSWORD_FILE=/run/secrets/db", "TOKENIZERS_PARALLELISM=false", "SECRET_KEY=$KEY",
			"DATABASE_URL=postgres://app:correct9horse@db/x"],
		"Labels": {"build.token": "` + token + `", "maintainer": "nobody"},
		"Cmd": ["server", "--url", "https://app:k9secret77@repo.test/x"]},
		"history": [{"created_by": "ENV AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE"},
			{"created_by": "RUN |2 NPM_TOKEN=tok3nvalue VERSION=1 /bin/sh -c npm ci # buildkit"}]}`
	var cfg gatehouse.ImageConfig
	if err := json.Unmarshal([]byte(doc), &cfg); err != nil {
		t.Fatal(err)
	}
	type row struct{ ID, Origin, Name, Excerpt string }
	var got []row
	for _, f := range secret.Config(cfg) {
		got = append(got, row{f.ID, f.Location.Origin, f.Location.Name, f.Location.Excerpt})
	}
	want := []row{
		{"aws-access-key-id", "env", "AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID=AKIA********"},
		{"aws-secret-access-key", "env", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY=********"},
		{"variable-by-name", "env", "MYSQL_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD=********"},
		{"database-url", "env", "DATABASE_URL", "********@db"},
		{"github-pat", "label", "build.token", "build.token=ghp_********"},
		{"url-password", "config", "Cmd", "********@repo.test"},
		{"variable-by-name", "history", "step 2", "NPM_TOKEN=********"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"PASSWORD": true, "POSTGRES_PASSWORD": true, "api.key": true, "API_KEY": true, "NPM_TOKEN": true, "my-secret": true, "DB_PWD": true,
		"PWD": false, "PASSWORD_FILE": false, "TOKENIZERS": false, "KEY": false, "GPG_KEY": false, "SECRET_NAME": false, "PUBLIC_KEY": false,
		"MONKEY": false, "": false, "COMPASS": false, "A B_TOKEN": false,
	} {
		if got := secret.SecretName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
