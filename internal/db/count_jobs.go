package db

import "context"

// JobCount is how many jobs of a kind are in a state.
type JobCount struct {
	Kind  string
	State JobState
	Count int64
}

// JobCounts counts the jobs that are kept, by kind and state. It reads them all.
func (t *Tx) JobCounts(ctx context.Context) ([]JobCount, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT kind, state, COUNT(*) FROM job GROUP BY kind, state ORDER BY kind, state`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []JobCount
	for rows.Next() {
		var c JobCount
		if err := rows.Scan(&c.Kind, &c.State, &c.Count); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, c)
	}
	return out, unavailable(rows.Err())
}
