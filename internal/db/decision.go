package db

import (
	"bytes"
	"compress/flate"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// treeKnownAge is how old the note of a tree's last use may be: many decisions have
// the same tree, and not each of them writes its row again.
const treeKnownAge = time.Hour

// SaveDecision keeps a decision, so that it can be explained later.
func (t *Tx) SaveDecision(ctx context.Context, d gatehouse.Decision) error {
	return t.SaveDecisions(ctx, d)
}

// SaveDecisions keeps decisions, few statements for many. Their IDs differ.
func (t *Tx) SaveDecisions(ctx context.Context, list ...gatehouse.Decision) error {
	rows := make([][]any, len(list))
	for i, d := range list {
		tree, err := t.saveTree(ctx, d.Tree)
		if err != nil {
			return err
		}
		d.Tree = nil
		doc, err := json.Marshal(d)
		if err != nil {
			return err
		}
		rows[i] = []any{d.ID, micros(d.At), int(d.Verdict), string(doc), dbDigest(tree)}
	}
	return t.insertRowsOr(ctx, `INSERT INTO decision (id, at, verdict, doc, tree) VALUES `, rows, ` ON CONFLICT (id) DO NOTHING`)
}

// saveTree keeps a tree once, and returns its digest; none has none.
func (t *Tx) saveTree(ctx context.Context, tree []gatehouse.Step) (gatehouse.Digest, error) {
	if len(tree) == 0 {
		return "", nil
	}
	doc, err := json.Marshal(tree)
	if err != nil {
		return "", err
	}
	digest := gatehouse.DigestOf(doc)
	// One whose use was noted a moment ago is not about to be pruned.
	var used int64
	err = t.tx.QueryRowContext(ctx, `SELECT used_at FROM decision_tree WHERE digest = $1`, dbDigest(digest)).Scan(&used)
	if err == nil && used > micros(t.now.Add(-treeKnownAge)) {
		return digest, nil
	}
	if err != nil && !none(err) {
		return "", unavailable(err)
	}
	small, err := deflate(doc)
	if err != nil {
		return "", err
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO decision_tree (digest, used_at, doc) VALUES ($1, $2, $3)
		ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at`, dbDigest(digest), micros(t.now), small)
	if err != nil {
		return "", unavailable(err)
	}
	return digest, nil
}

// Decision finds a kept decision. CodeNotFound: there is none.
func (t *Tx) Decision(ctx context.Context, id string) (d gatehouse.Decision, err error) {
	var doc string
	var tree []byte
	err = t.tx.QueryRowContext(ctx, `SELECT d.doc, t.doc FROM decision d LEFT JOIN decision_tree t ON t.digest = d.tree WHERE d.id = $1`, id).Scan(&doc, &tree)
	if errors.Is(err, sql.ErrNoRows) {
		return d, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no decision %q", id)
	}
	if err != nil {
		return d, unavailable(err)
	}
	err = json.Unmarshal([]byte(doc), &d)
	if err == nil && tree != nil {
		var plain []byte
		if plain, err = inflate(tree); err == nil {
			err = json.Unmarshal(plain, &d.Tree)
		}
	}
	if err != nil {
		return gatehouse.Decision{}, fmt.Errorf("couldn't read stored decision %s: %w", id, err)
	}
	return d, nil
}

// PruneDecisions drops decisions from before the given time, and the oldest of
// those that are more than max.
func (t *Tx) PruneDecisions(ctx context.Context, before time.Time, max int) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM decision WHERE at < $1 OR at <= COALESCE(
		(SELECT at FROM decision ORDER BY at DESC LIMIT 1 OFFSET $2), 0)`, micros(before), max)
	if err != nil {
		return unavailable(err)
	}
	// Whoever relies on a tree has noted its use, or seen a note that is younger
	// than this, in a transaction that has ended since.
	_, err = t.tx.ExecContext(ctx, `DELETE FROM decision_tree WHERE used_at < $1
		AND NOT EXISTS (SELECT 1 FROM decision d WHERE d.tree = decision_tree.digest)`, micros(t.now.Add(-2*treeKnownAge)))
	return unavailable(err)
}

// inflatedMax bounds what a stored document may become, in bytes.
const inflatedMax = 64 << 20

// deflaters are used again: making one takes more than a megabyte.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // of a level that does not exist
	}
	return w
}}

func deflate(doc []byte) ([]byte, error) {
	var b bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&b)
	_, err := w.Write(doc)
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}

func inflate(small []byte) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(small)), inflatedMax+1))
	if err == nil && len(doc) > inflatedMax {
		err = fmt.Errorf("a stored document has more than %d bytes", inflatedMax)
	}
	return doc, err
}
