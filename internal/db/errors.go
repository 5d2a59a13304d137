package db

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
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
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pgUnavailable(pe, err)
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
		// SQLite says so, too, of a file whose disk went away in the middle.
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database file cannot be read, or is damaged: %w", err).
			WithHint("is the disk there and whole? If it is, restore the database from a backup")
	}
	return &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "the database refused a statement", Err: err}
}

// pgUnavailable is unavailable for what a PostgreSQL server says, by its code
// (PostgreSQL documentation, appendix A).
func pgUnavailable(pe *pgconn.PgError, err error) error {
	switch class := pe.Code[:min(2, len(pe.Code))]; {
	case pe.Code == "53100" || pe.Code == "58030": // disk full, I/O error
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot write: %w", err).WithHint("is the disk of the database server full?")
	case pe.Code == "25006": // read-only transaction
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot write: %w", err).WithHint("it is a standby now: name all hosts and target_session_attrs=read-write")
	case pe.Code == "57014" || class == "40" || class == "53" || class == "55": // cancelled, undone, out of resources, locked
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database is busy: %w", err)
	case class == "08" || class == "57" || class == "58" || pe.Code == "25P03" || pe.Code == "25P04": // connection, operator, system, timeouts
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the database does not answer: %w", err)
	case pe.Code == "22021" || pe.Code == "22P05": // a character that the encoding does not have
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the text holds characters that cannot be stored: %w", err)
	case class == "XX":
		return gatehouse.Errorf(gatehouse.CodeInternal, "the database is damaged: %w", err).WithHint("see the log of the database server")
	}
	return &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "the database refused a statement", Err: err}
}

// undone reports whether the database undid a transaction that may succeed when
// it is run again: a deadlock, a serialization failure, or a job that became
// ready at the same moment in two ways.
func undone(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	return pe.Code == "40001" || pe.Code == "40P01" || pe.Code == "23505" && pe.ConstraintName == "job_ready_once"
}

// lost reports whether a connection of the pool to PostgreSQL turned out to be
// broken: the server was restarted since it was used last. That no new one could
// be made is another matter.
func lost(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code == "57P01" || pe.Code == "57P02" // shut down by the operator, or by a crash
	}
	var refused *pgconn.ConnectError
	var ne *net.OpError
	return !errors.As(err, &refused) && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.As(err, &ne) && !ne.Timeout())
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
