package registry_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/registry/registrytest"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("Conformance", func(t *testing.T) { registrytest.Run(t, newHouse(t, setup{}).Target) })
	t.Run("MountWithoutReadAccess", TestMountWithoutReadAccess)
	t.Run("TwoWritersOfOneSession", TestTwoWritersOfOneSession)
	t.Run("TagsBeyondOnePage", TestTagsBeyondOnePage)
	t.Run("ImmutableTags", TestImmutableTags)
	t.Run("ReferrersPages", TestReferrersPages)
	t.Run("ParallelPushes", TestParallelPushes)
	t.Run("TruncatedPatchIsResumed", TestTruncatedPatchIsResumed)
}
