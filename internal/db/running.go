package db

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// RunningKey names the Pods of one template that one workload of the cluster owns.
type RunningKey struct {
	Namespace, Kind, Name string
	Template              gatehouse.Digest
}

// Running is what was decided of them.
type Running struct {
	ID int64 // set by the database
	RunningKey
	Pods    int
	Verdict gatehouse.Verdict
	Since   time.Time // the verdict is this one
	Told    bool      // the cluster has its Event
	Images  []gatehouse.Digest
	Doc     string // JSON
}

// SaveRunning adds or replaces a row. Images are written only with a new one: equal
// templates have equal images.
func (t *Tx) SaveRunning(ctx context.Context, r Running) (id int64, err error) {
	fresh := r.ID == 0
	err = t.tx.QueryRowContext(ctx, `INSERT INTO running (namespace, kind, name, template, pods, verdict, since, told, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (namespace, kind, name, template) DO UPDATE SET pods = excluded.pods, verdict = excluded.verdict, since = excluded.since, told = excluded.told, doc = excluded.doc
		RETURNING id`, r.Namespace, r.Kind, r.Name, dbDigest(r.Template), r.Pods, int(r.Verdict), micros(r.Since), number(r.Told), r.Doc).Scan(&id)
	if err != nil {
		return 0, unavailable(err)
	}
	if !fresh {
		return id, nil
	}
	for _, d := range r.Images {
		if d == "" {
			continue
		}
		if _, err := t.tx.ExecContext(ctx, `INSERT INTO running_image (digest, running) VALUES ($1, $2) ON CONFLICT DO NOTHING`, dbDigest(d), id); err != nil {
			return 0, unavailable(err)
		}
	}
	return id, nil
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

// ToldRunning notes that the cluster has the Event of a row, if its verdict is still the
// one since then.
func (t *Tx) ToldRunning(ctx context.Context, id int64, since time.Time) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE running SET told = 1 WHERE id = $1 AND since = $2`, id, micros(since))
	return unavailable(err)
}

// DeleteRunning removes a row.
func (t *Tx) DeleteRunning(ctx context.Context, id int64) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM running_image WHERE running = $1`, id); err != nil {
		return unavailable(err)
	}
	_, err := t.tx.ExecContext(ctx, `DELETE FROM running WHERE id = $1`, id)
	return unavailable(err)
}

// RunningFilter says which rows are wanted; zero fields: any.
type RunningFilter struct {
	Namespace string
	Digest    gatehouse.Digest
	Verdict   *gatehouse.Verdict
	After     int64 // id
}

// Running lists rows by id, at most n, without their Images.
func (t *Tx) Running(ctx context.Context, f RunningFilter, n int) (out []Running, err error) {
	where, args := []string{"id > $1"}, []any{f.After, n}
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.Namespace != "" {
		add("namespace = $%d", f.Namespace)
	}
	if f.Digest != "" {
		add("id IN (SELECT running FROM running_image WHERE digest = $%d)", dbDigest(f.Digest))
	}
	if f.Verdict != nil {
		add("verdict = $%d", int(*f.Verdict))
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT id, namespace, kind, name, template, pods, verdict, since, told, doc FROM running
		WHERE `+strings.Join(where, " AND ")+` ORDER BY id LIMIT $2`, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r Running
		var since int64
		var told int
		if err := rows.Scan(&r.ID, &r.Namespace, &r.Kind, &r.Name, (*dbDigest)(&r.Template), &r.Pods, &r.Verdict, &since, &told, &r.Doc); err != nil {
			return nil, unavailable(err)
		}
		r.Since, r.Told = fromMicros(since), told != 0
		out = append(out, r)
	}
	return out, unavailable(rows.Err())
}
