package db

import (
	"context"
	"database/sql"
	"errors"

	"modernc.org/sqlite"

	"github.com/gatehouse-dev/gatehouse"
)

// unavailable turns an error of the database itself into one that callers can
// tell: it may pass. Cancelled contexts keep their own error.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	const full, ioerr = 13, 10 // SQLITE_FULL, SQLITE_IOERR
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code()&0xff == full || se.Code()&0xff == ioerr) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot write: %w", err).WithHint("is the disk full?")
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database does not answer: %w", err)
}

// notFound is the error for a row that is not there. detail is the code of the
// distribution-spec, where it has one.
func notFound(detail, format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, format, args...).WithDetail(detail)
}

// none reports whether a single-row query found nothing.
func none(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// affected returns the number of rows that a statement changed.
func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, unavailable(err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}
