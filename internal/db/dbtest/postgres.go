package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// Postgres returns the URL of a fresh database, with the schema and without
// rows, on a real PostgreSQL, which is started once per test binary and dies
// with it. The database is dropped after the test. Without PostgreSQL on the
// machine the test is skipped.
//
// Nothing of that server is durable, and events of one database wait for the
// transactions of all: tests that use it do not run in parallel.
func Postgres(t testing.TB) string { return database(t, " TEMPLATE "+template) }

// EmptyPostgres is [Postgres] without the schema.
func EmptyPostgres(t testing.TB) string { return database(t, "") }

// OpenPostgres opens a fresh database.
func OpenPostgres(t testing.TB, opts db.Options) *db.DB {
	t.Helper()
	return Open(t, Postgres(t), opts)
}

// Open opens the database at url until the test ends: one replica of many.
func Open(t testing.TB, url string, opts db.Options) *db.DB {
	t.Helper()
	d, err := db.OpenPostgres(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// At opens the database of a directory, the same one each time; the caller closes
// it. It is a file there, or a PostgreSQL for tests that run as subtests of
// TestPostgres: so that a package says in one line each which of its tests run
// on both.
func At(t testing.TB, dir string, opts db.Options) *db.DB {
	t.Helper()
	if !strings.HasPrefix(t.Name(), "TestPostgres/") {
		d, err := db.OpenSQLite(t.Context(), filepath.Join(dir, "meta.db"), opts)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	u, ok := places.Load(dir)
	if !ok {
		u = Postgres(t)
		places.Store(dir, u)
	}
	d, err := db.OpenPostgres(t.Context(), u.(string), opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var places sync.Map // URLs by directory

const template = "gatehouse_template"

// shared is the server of this test binary. It ends by itself: see [Server].
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

func database(t testing.TB, from string) string {
	t.Helper()
	bin := filepath.Dir(tool.Need(t, "postgres"))
	shared.once.Do(func() {
		shared.server, shared.err = newServer(bin, false)
		if shared.err == nil {
			shared.err = shared.server.makeTemplate(context.Background())
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server.Database(t, from)
}

// Server is a PostgreSQL of its own. As root it runs as the user postgres, as
// the program insists. It listens on a free loopback port and stops, leaving
// nothing behind, when this process ends, in whatever way that is.
type Server struct {
	bin, dir string
	port     int
	password string
	durable  bool
	as       *syscall.Credential
	leash    io.WriteCloser // to the keeper of the running server; nil: it does not run
	ended    chan error     // how it ended
}

// StartServer starts a server of the test's own, whose commits are durable.
func StartServer(t testing.TB) *Server {
	t.Helper()
	s, err := newServer(filepath.Dir(tool.Need(t, "postgres")), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.leash != nil {
			s.Kill(t)
		}
		if err := os.RemoveAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// URL names a database of the server.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("gatehouse", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database}
	return u.String()
}

// Database makes a database that is dropped after the test and returns its URL.
// with is the end of CREATE DATABASE.
func (s *Server) Database(t testing.TB, with string) string {
	t.Helper()
	name := "t_" + strings.ToLower(rand.Text())
	if err := s.exec(t.Context(), "CREATE DATABASE "+name+with); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.leash == nil {
			return
		}
		if err := s.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.URL(name)
}

// Kill stops the server as a crash does: pg_ctl stop -m immediate.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	leash := s.leash
	s.leash = nil
	_, err := io.WriteString(leash, "stop\n")
	if err != nil {
		leash.Close()
	}
	<-s.ended // with an error: this is no good end; and the leash is closed
	if err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again after [Server.Kill] and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) makeTemplate(ctx context.Context) error {
	if err := s.exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	d, err := db.OpenPostgres(ctx, s.URL(template), db.Options{})
	if err != nil {
		return err
	}
	return d.Close()
}

func (s *Server) exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// newServer makes a cluster and starts it. Its locale orders text as people do,
// so that what must be in byte order shows.
func newServer(bin string, durable bool) (_ *Server, err error) {
	s := &Server{bin: bin, password: rand.Text(), durable: durable}
	if os.Geteuid() == 0 {
		if s.as, err = credential("postgres"); err != nil {
			return nil, err
		}
	}
	if s.dir, err = os.MkdirTemp("", "gatehouse-postgres-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
	}()
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.password), 0o600); err != nil {
		return nil, err
	}
	if s.as != nil {
		if err := errors.Join(os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid)), os.Chown(secret, int(s.as.Uid), int(s.as.Gid))); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", "gatehouse", "-A", "scram-sha-256", "--pwfile", secret,
		"-E", "UTF8", "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = listener.Addr().(*net.TCPAddr).Port
	return s, errors.Join(listener.Close(), s.start())
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

// keeper runs the server until it reads a line; where the line never comes
// because this process is gone, it also removes the files.
const keeper = `dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- & pid=$!
{ read -r stop <&3 || : >"$dir/orphan"; kill -QUIT $pid; } 2>/dev/null &
wait $pid; code=$?
test -e "$dir/orphan" && rm -rf "$dir"
exit $code`

// start starts the server and waits until it answers.
func (s *Server) start() error {
	args := []string{"-c", keeper, "sh", s.dir, filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"),
		"-c", "listen_addresses=127.0.0.1", "-c", "port=" + strconv.Itoa(s.port), "-c", "unix_socket_directories=" + s.dir,
		"-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "autovacuum=off", "-c", "logging_collector=off"}
	if !s.durable {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	if s.leash, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- cmd.Wait() }()
	return s.answers()
}

// startMax bounds the start, which after a crash replays the log.
const startMax = 2 * time.Minute

func (s *Server) answers() error {
	ctx, stop := context.WithTimeout(context.Background(), startMax)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case why := <-s.ended:
			return fmt.Errorf("PostgreSQL ended: %w\n%s", errors.Join(why, err), s.log())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, s.log())
		}
	}
}

// log returns the end of what the server said.
func (s *Server) log() []byte {
	f, err := os.Open(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 1<<20)) // what can be read of it
	return text[max(0, len(text)-4<<10):]
}
