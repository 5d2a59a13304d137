package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// connectionsMax bounds the connections of one process, half of them for
	// transactions that write, without the one that listens. Four replicas fit
	// into PostgreSQL's default of a hundred. The URL may say pool_max_conns.
	connectionsMax  = 20
	connectTimeout  = 10 * time.Second // unless the URL says connect_timeout
	connectionIdle  = 5 * time.Minute
	connectionAge   = 30 * time.Minute // so that load follows a server that was added
	postgresOldest  = 150000           // server_version_num
	postgresExample = "write it as postgres://user:password@host:5432/database, special characters of the password as %%XX"
)

// OpenPostgres connects to the database that rawURL names, postgres://…, and
// brings its schema up to date; replicas may do so at once. Parameters are those
// of libpq (sslmode, sslrootcert, target_session_attrs, search_path, …), several
// hosts are tried in order, and the environment (PGPASSWORD, PGPASSFILE, …) says
// what the URL does not. A transaction that committed survives power loss.
//
// CodeInvalid: the URL is wrong, or the server refuses the login or is too old.
// CodeConflict: the schema is of a newer version, or of two processes that share
// it one said [Options.Alone]. CodeUnavailable: it does not
// answer. No error shows a password.
func OpenPostgres(ctx context.Context, rawURL string, opts Options) (*DB, error) {
	config, size, err := parsePostgres(rawURL)
	if err != nil {
		return nil, err
	}
	d := &DB{dialect: postgresDialect, reading: postgresDialect.reading(), now: opts.Now, onWrite: opts.OnWrite}
	d.changed.reset()
	d.jobs.reset()
	pool := func(size int) *sql.DB {
		p := sql.OpenDB(pgConnector{stdlib.GetConnector(*config, stdlib.OptionAfterConnect(settle)), &d.statements})
		p.SetMaxOpenConns(size)
		p.SetMaxIdleConns(size)
		p.SetConnMaxIdleTime(connectionIdle)
		p.SetConnMaxLifetime(connectionAge)
		return p
	}
	d.write, d.read = pool(size/2), pool(size-size/2)
	err = checkServer(ctx, d.write)
	if err == nil {
		err = d.migrate(ctx)
	}
	if err == nil {
		d.replicas, err = connectReplicas(ctx, d, config, opts.Alone)
	}
	if err != nil {
		d.Close()
		return nil, openFailed(config, err)
	}
	if d.now == nil {
		d.now = d.replicas.clock.now
	}
	return d, nil
}

// CheckPostgres reads the URL as [OpenPostgres] does, and contacts nobody.
// Errors: CodeInvalid.
func CheckPostgres(rawURL string) error {
	_, _, err := parsePostgres(rawURL)
	return err
}

// parsePostgres reads the URL and how many connections it allows. Its errors
// quote nothing that may be a part of the password.
func parsePostgres(rawURL string) (*pgx.ConnConfig, int, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" || strings.Contains(rawURL, "#") {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the database URL cannot be read").WithHint(postgresExample)
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the database URL does not begin with postgres://").WithHint(postgresExample)
	}
	// Parsers disagree on where the password ends; a part of it would be taken
	// for the host, and shown.
	authority, _, _ := strings.Cut(strings.TrimPrefix(rawURL, u.Scheme+"://"), "/")
	if strings.Count(authority, "@") > 1 {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the database URL has more than one @ before its database").WithHint(postgresExample)
	}
	config, err := pgx.ParseConfig(rawURL)
	if err != nil {
		why := "the database URL cannot be used"
		var pe *pgconn.ParseConfigError
		if cause := errors.Unwrap(err); errors.As(err, &pe) && cause != nil && !quotes(cause.Error(), u) {
			why += ": " + cause.Error()
		}
		return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s", why).WithHint(postgresExample)
	}
	size := connectionsMax
	if text, ok := config.RuntimeParams["pool_max_conns"]; ok {
		delete(config.RuntimeParams, "pool_max_conns")
		if size, err = strconv.Atoi(text); err != nil || size < 4 || size > 10_000 {
			return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the database URL has a pool_max_conns that is no number from 4 to 10000")
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "gatehouse"
	}
	return config, size, nil
}

// quotes reports whether a text shows the password of u, written in any way.
func quotes(text string, u *url.URL) bool {
	password, _ := u.User.Password()
	raw := strings.TrimPrefix(u.User.String(), url.User(u.User.Username()).String()+":")
	query := u.Query().Get("password")
	for _, p := range []string{password, raw, query} {
		if p != "" && strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// settle sets what the server may not decide otherwise for this connection: a
// commit is durable, a replica that vanished does not hold its locks for hours,
// and no query of ours is worth compiling.
func settle(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
		SELECT set_config('tcp_keepalives_idle', '60', false), set_config('tcp_keepalives_interval', '15', false),
			set_config('tcp_keepalives_count', '4', false), set_config('idle_in_transaction_session_timeout', '10min', false),
			set_config('jit', 'off', false)`)
	return err
}

// checkServer refuses a server that would fail later.
func checkServer(ctx context.Context, p *sql.DB) error {
	var version int
	var encoding string
	var standby bool
	err := p.QueryRowContext(ctx, `SELECT CAST(current_setting('server_version_num') AS INTEGER), current_setting('server_encoding'), pg_is_in_recovery()`).
		Scan(&version, &encoding, &standby)
	switch {
	case err != nil:
		return err
	case version < postgresOldest:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "its PostgreSQL %d is too old", version/10000).WithHint("use version %d or newer", postgresOldest/10000)
	case encoding != "UTF8":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "its encoding is %s", encoding).WithHint("make the database with ENCODING 'UTF8' TEMPLATE template0")
	case standby:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "it is a standby, which cannot be written to").
			WithHint("name the primary, or all hosts and target_session_attrs=read-write")
	}
	return nil
}

// openFailed says what is wrong with a database that cannot be opened.
func openFailed(config *pgx.ConnConfig, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	what := "couldn't open the database " + config.Database + " at " + net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	var ge *gatehouse.Error
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe): // see below
	case errors.As(err, &ge):
		return gatehouse.Errorf(ge.Code, "%s: %w", what, err).WithHint("%s", ge.Hint)
	default:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s: it does not answer: %w", what, err).
			WithHint("is PostgreSQL running there, and do host, port and sslmode fit?")
	}
	switch {
	case strings.HasPrefix(pe.Code, "28"): // invalid authorization
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: the login is refused: %s", what, pe.Message).WithHint("check user, password and sslmode of the URL, and pg_hba.conf")
	case pe.Code == "3D000": // invalid catalog name
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: there is no such database", what).WithHint("CREATE DATABASE %s", config.Database)
	case pe.Code == "3F000" || pe.Code == "42501": // no schema to create in; insufficient privilege
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s", what, pe.Message).WithHint("the user must own a schema that is first in its search_path")
	}
	err = unavailable(err)
	return gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", what, err)
}

// begin begins a transaction. After the server was restarted every connection of
// the pool is broken, which shows when it is used first: nothing was done on it
// then, so that the next one is tried. That a new one cannot be made is an error.
func (d *DB) begin(ctx context.Context, pool *sql.DB, opts *sql.TxOptions) (*sql.Tx, error) {
	for tries := pool.Stats().MaxOpenConnections; ; tries-- {
		tx, err := pool.BeginTx(ctx, opts)
		if err == nil || tries <= 0 || ctx.Err() != nil || !lost(err) {
			return tx, err
		}
	}
}

// pgConnector opens connections that count their statements.
type pgConnector struct {
	driver.Connector
	count *atomic.Int64
}

// Connect implements driver.Connector.
func (c pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	raw, ok := conn.(*stdlib.Conn)
	if !ok {
		conn.Close()
		return nil, errors.New("the PostgreSQL driver's connections lack what this program needs of them")
	}
	return &pgConn{raw, c.count}, nil
}

// pgConn is one connection. The driver keeps its prepared statements.
type pgConn struct {
	*stdlib.Conn
	count *atomic.Int64
}

// ExecContext implements driver.ExecerContext.
func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.count.Add(1)
	return c.Conn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.count.Add(1)
	return c.Conn.QueryContext(ctx, query, args)
}

// CheckNamedValue implements driver.NamedValueChecker: values become what they
// become on SQLite, and text what PostgreSQL can hold. Names of packages, paths
// and media types come from strangers; an image must not become impossible to
// index because of a zero byte in one of them. Names that identify anything here
// were checked before.
func (c *pgConn) CheckNamedValue(v *driver.NamedValue) (err error) {
	v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
	if s, ok := v.Value.(string); ok && (strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)) {
		v.Value = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	}
	return err
}
