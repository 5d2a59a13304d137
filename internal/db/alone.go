package db

import "context"

// EndLeases gives back what a process that has died had claimed: upload sessions
// and jobs. It is for a process that is alone on the database; beside others,
// leases run out by themselves.
func (t *Tx) EndLeases(ctx context.Context) error {
	for _, query := range []string{
		`UPDATE upload SET lease = '', leased_until = 0 WHERE lease <> ''`,
		`UPDATE job SET leased_until = 0 WHERE state = 1`,
		`DELETE FROM lease`,
	} {
		if _, err := t.tx.ExecContext(ctx, query); err != nil {
			return unavailable(err)
		}
	}
	return nil
}
