package pipeline

import (
	"context"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// signatures names what the scanner judges by: its version, and how often it was
// asked that every layer is looked at again, because the version does not tell of
// all that changes. It is asked before a layer is read: what changes meanwhile
// must not pass for seen.
func (p *Pipeline) signatures(ctx context.Context) (string, error) {
	var rescans int64
	err := p.db.Read(ctx, func(tx *db.Tx) (err error) {
		rescans, err = tx.MalwareRescans(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	version, err := p.scanner.Version(ctx)
	if err == nil && rescans > 0 {
		version += fmt.Sprintf(" rescan %d", rescans)
	}
	return version, err
}

// MalwareStatus is what a scanner of malware has done and has to do.
type MalwareStatus struct {
	Scanner bool   // there is one
	Version string // of its signatures, as it tells it
	Err     error  // why it does not tell
	Waiting int64  // layers that wait to be looked at again
	Scans   db.MalwareScans
}

// MalwareStatus asks the scanner and counts.
func (p *Pipeline) MalwareStatus(ctx context.Context) (s MalwareStatus, err error) {
	judged := ""
	if s.Scanner = p.scanner != nil; s.Scanner {
		if s.Version, s.Err = p.scanner.Version(ctx); s.Err == nil {
			if judged, err = p.signatures(ctx); err != nil {
				return s, err
			}
		}
	}
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if s.Scans, err = tx.MalwareScans(ctx, judged); err != nil || !s.Scanner {
			return err
		}
		s.Waiting, err = tx.MalwareLeft(ctx)
		return err
	})
	return s, err
}

// Rescan has every stored layer looked at again, whatever the scanner said of it,
// and tells how many wait for that now: those of images that a cluster asked for
// go first, and what is known stands until then.
// Errors: CodeConflict where there is no scanner, CodeUnavailable where it does
// not answer.
func (p *Pipeline) Rescan(ctx context.Context, actor gatehouse.Actor) (waiting int64, err error) {
	if p.scanner == nil {
		return 0, gatehouse.Errorf(gatehouse.CodeConflict, "this server has no clamd, and lists are matched at once").
			WithHint("name one in the setting clamd")
	}
	if _, err := p.scanner.Version(ctx); err != nil {
		return 0, err // nobody could look
	}
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.AskMalwareRescan(ctx); err != nil {
			return err
		}
		return tx.AddAudit(ctx, actor, "malware.rescan", "", "")
	})
	if err != nil {
		return 0, err
	}
	if err := p.queueRescan(ctx); err != nil {
		return 0, err
	}
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		waiting, err = tx.MalwareLeft(ctx)
		return err
	})
	p.wakeUp()
	return waiting, err
}
