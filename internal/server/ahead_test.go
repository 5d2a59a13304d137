package server_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// TestLookedAtAhead: what policies want to know of an image is asked when the image has
// come, before anybody deploys it, and by each replica for itself.
func TestLookedAtAhead(t *testing.T) {
	t.Run("alone", func(t *testing.T) { lookedAtAhead(t, start(t, t.TempDir(), nil)) })
	t.Run("replicas", func(t *testing.T) {
		bucket, database := s3test.Start(t), dbtest.Postgres(t)
		env := func(key string) string {
			if key == "GATEHOUSE_ADMIN_PASSWORD" {
				return password
			}
			return bucket.Getenv(key)
		}
		var replicas []*running
		for range 2 {
			replicas = append(replicas, startWith(t, t.TempDir(), func(c *config.Config) { c.Database, c.Storage = database, bucket.URL },
				slog.New(slog.DiscardHandler), time.Now, env))
		}
		lookedAtAhead(t, replicas...)
	})
}

// lookedAtAhead pushes and signs at the first of some replicas.
func lookedAtAhead(t *testing.T, replicas ...*running) {
	t.Helper()
	r, k := replicas[0], signer(t)
	r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "registry.example/**", k))
	for _, one := range replicas {
		if n := one.Remembered(); n != 0 {
			t.Fatalf("%d answers are remembered of nothing", n)
		}
	}
	digest := r.push("a/b:1")
	r.signImage(k, "a/b", digest, sign.Options{})
	for _, one := range replicas {
		one.eventually("an answer", func() bool { return one.Remembered() > 0 })
		if a := one.ask("/validate", "registry.example/a/b@"+digest); !a.Allowed {
			t.Errorf("the signed image: %+v", a)
		}
	}
}
