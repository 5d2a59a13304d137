package auth_test

import (
	"testing"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("Verify", TestVerify)
	t.Run("ChangedPasswordCountsAtOnce", TestChangedPasswordCountsAtOnce)
	t.Run("ChangePasswordRules", TestChangePasswordRules)
	t.Run("EnsureAdmin", TestEnsureAdmin)
	t.Run("EnsureAdminWithGivenPassword", TestEnsureAdminWithGivenPassword)
	t.Run("Authenticate", TestAuthenticate)
	t.Run("Allow", TestAllow)
}
