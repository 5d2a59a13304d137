package job_test

import (
	"testing"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("RunsEachOnce", TestRunsEachOnce)
	t.Run("ReadyOnce", TestReadyOnce)
	t.Run("SameKeyNeverAtOnce", TestSameKeyNeverAtOnce)
	t.Run("Retries", TestRetries)
	t.Run("TakenOver", TestTakenOver)
	t.Run("Poison", TestPoison)
	t.Run("Heartbeat", TestHeartbeat)
	t.Run("Cancel", TestCancel)
	t.Run("Finish", TestFinish)
	t.Run("Stop", TestStop)
	t.Run("StopLetsFinish", TestStopLetsFinish)
	t.Run("UnknownKindsStay", TestUnknownKindsStay)
	t.Run("List", TestList)
}
