package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
)

// sigstoreKeys keeps the keys of the private Sigstore in the database. It
// implements keyring.Store.
type sigstoreKeys struct {
	db    *db.DB
	actor gatehouse.Actor // who changes them
}

// Load implements keyring.Store.
func (k sigstoreKeys) Load(ctx context.Context) (out keyring.State, err error) {
	var state db.Sigstore
	var rows []db.SigstoreKey
	err = k.db.Read(ctx, func(tx *db.Tx) (err error) {
		if state, err = tx.Sigstore(ctx); err != nil {
			return err
		}
		rows, err = tx.SigstoreKeys(ctx)
		return err
	})
	if err != nil {
		return out, err
	}
	out = keyring.State{Generation: state.Generation, Sealer: state.Sealer, DataKey: state.DataKey}
	for _, row := range rows {
		chain, err := x509.ParseCertificates(row.Chain)
		if err != nil {
			return out, gatehouse.Errorf(gatehouse.CodeDamaged, "the certificates of the key %s of the private Sigstore cannot be read: %w", row.ID, err)
		}
		key := keyring.Row{ID: row.ID, Kind: row.Kind, Name: row.Name, Public: row.Public, Sealed: row.Sealed, From: row.From, Until: row.Until}
		for _, c := range chain {
			key.Chain = append(key.Chain, c.Raw)
		}
		out.Rows = append(out.Rows, key)
	}
	return out, nil
}

// Change implements keyring.Store: with its audit record and event.
func (k sigstoreKeys) Change(ctx context.Context, generation int64, change keyring.Change) error {
	return k.db.Write(ctx, func(tx *db.Tx) error {
		var mine bool
		var err error
		act := "sigstore.rotate"
		if generation == 0 {
			act = "sigstore.init"
			mine, err = tx.BeginSigstore(ctx, change.Sealer, change.DataKey)
		} else {
			mine, err = tx.StepSigstore(ctx, generation)
		}
		if err != nil {
			return err
		}
		if !mine {
			return gatehouse.Errorf(gatehouse.CodeConflict, "the keys of the private Sigstore were changed meanwhile")
		}
		var kinds []string
		rows := make([]db.SigstoreKey, len(change.Add))
		for i, key := range change.Add {
			kinds = append(kinds, key.Kind)
			rows[i] = db.SigstoreKey{ID: key.ID, Kind: key.Kind, Name: key.Name, Public: key.Public, Chain: slices.Concat(key.Chain...),
				Sealed: key.Sealed, From: key.From, Until: key.Until}
		}
		if err := tx.AddSigstoreKeys(ctx, rows...); err != nil {
			return err
		}
		for _, key := range change.End {
			if err := tx.EndSigstoreKey(ctx, key.ID, key.Until, key.Sealed); err != nil {
				return err
			}
		}
		payload, err := json.Marshal(map[string]any{"keys": kinds})
		if err != nil {
			return err
		}
		if err := tx.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventSigstoreRotated, Actor: k.actor.Name, Payload: payload}); err != nil {
			return err
		}
		return tx.AddAudits(ctx, k.actor, act, string(payload), kinds...)
	})
}

// files are the files of the TUF repository and the generation that they
// are of.
func (k sigstoreKeys) files(ctx context.Context) (generation int64, files map[string][]byte, err error) {
	err = k.db.Read(ctx, func(tx *db.Tx) error {
		state, err := tx.Sigstore(ctx)
		if err != nil {
			return err
		}
		generation = state.Generation
		files, err = tx.SigstoreFiles(ctx)
		return err
	})
	return generation, files, err
}

// publish adds files to those of the given generation. CodeConflict: there is a
// newer one.
func (k sigstoreKeys) publish(ctx context.Context, generation int64, files map[string][]byte) error {
	return k.db.Write(ctx, func(tx *db.Tx) error {
		newest, err := tx.StepSigstore(ctx, generation)
		if err != nil {
			return err
		}
		if !newest {
			return gatehouse.Errorf(gatehouse.CodeConflict, "the TUF repository was changed meanwhile")
		}
		for path, body := range files {
			if err := tx.PutSigstoreFile(ctx, path, body); err != nil {
				return err
			}
		}
		return nil
	})
}
