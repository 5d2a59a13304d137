package content_test

import (
	"testing"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("ContentInMemory", TestContentInMemory)
	t.Run("CommitAgain", TestCommitAgain)
	t.Run("ParallelChanges", TestParallelChanges)
	t.Run("Simulation", TestSimulation)
	t.Run("Traces", TestTraces)
	t.Run("OnPush", TestOnPush)
	t.Run("ReferrerAnnotations", TestReferrerAnnotations)
	t.Run("LeaseOfTheDead", TestLeaseOfTheDead)
	t.Run("CancelDuringAppend", TestCancelDuringAppend)
	t.Run("Sweep", TestSweep)
	t.Run("Damage", TestDamage)
}
