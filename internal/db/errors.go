package db

import (
	"context"
	"database/sql"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gatehouse-dev/gatehouse"
)

// unavailable turns an error of the database itself into one that callers can
// tell: CodeUnavailable where it may pass, CodeInternal where the fault is ours.
// Errors that say more already, and cancelled contexts, are passed on.
func unavailable(err error) error {
	var ge *gatehouse.Error
	if err == nil || errors.As(err, &ge) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database does not answer: %w", err)
	}
	switch se.Code() & 0xff { // the primary result code, sqlite.org/rescode.html
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot write: %w", err).WithHint("is the disk full, or read-only?")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database is busy: %w", err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return gatehouse.Errorf(gatehouse.CodeInternal, "the database file is damaged: %w", err).WithHint("restore it from a backup")
	}
	return &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "the database refused a statement", Err: err}
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
