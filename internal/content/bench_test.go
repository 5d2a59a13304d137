package content_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// openBench returns a registry with one repository of n tagged images.
func openBench(b *testing.B, n int) *content.Content {
	d, err := db.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "gatehouse.db"), db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	c := content.New(d, mem.New(), content.Options{})
	for i := range n {
		if err := pushImage(b.Context(), c, benchImage(i), fmt.Sprint("v", i)); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

func benchImage(i int) contenttest.Image {
	return contenttest.Image{Config: "{}", Layers: []string{"one", "two", "three"}, Annotations: map[string]string{"n": fmt.Sprint(i)}}
}

func BenchmarkManifestByTag(b *testing.B) {
	c := openBench(b, 100)
	for i := 0; b.Loop(); i++ {
		if _, err := c.ManifestByTag(b.Context(), "a/b", fmt.Sprint("v", i%100)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTags(b *testing.B) {
	c := openBench(b, 200)
	for b.Loop() {
		if tags, err := c.Tags(b.Context(), "a/b", "v1", 100); err != nil || len(tags) != 100 {
			b.Fatal(len(tags), err)
		}
	}
}

func BenchmarkPutManifest(b *testing.B) {
	c := openBench(b, 10)
	for i := 10; b.Loop(); i++ {
		put := gatehouse.ManifestPut{Repo: "a/b", Tags: []string{fmt.Sprint("v", i)}, MediaType: contenttest.OCIManifest, Body: benchImage(i).Body()}
		if _, err := c.PutManifest(b.Context(), contenttest.Pusher, put); err != nil {
			b.Fatal(err)
		}
	}
}
