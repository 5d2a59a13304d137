package main

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestNewestBillFirst(t *testing.T) {
	bill := func(name, created string) gatehouse.Descriptor {
		return gatehouse.Descriptor{ArtifactType: name, Annotations: map[string]string{"org.opencontainers.image.created": created}}
	}
	list := []gatehouse.Descriptor{
		{ArtifactType: "silent"}, bill("old", "2025-01-02T03:04:05Z"), bill("wrong", "yesterday"),
		bill("new", "2026-01-01T00:30:00+01:00"), bill("older zone", "2025-12-31T23:00:00Z"),
	}
	newestFirst(list)
	want := []string{"new", "older zone", "old", "silent", "wrong"}
	for i, d := range list {
		if d.ArtifactType != want[i] {
			t.Errorf("place %d has the bill %q, want %q", i, d.ArtifactType, want[i])
		}
	}
}
