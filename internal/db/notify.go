package db

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-dev/gatehouse"
)

// replicas is what processes on one PostgreSQL tell each other, on a connection
// of its own: LISTEN needs one, and the same one tells and asks for the time.
//
// That there is work is told after the commit, many commits at once where they
// come fast: a NOTIFY within the transaction would have all commits of the
// database cluster wait for each other, and workers look now and then anyway.
// Of what others wait for without looking (a policy, a generation) the
// transaction itself tells, see [Tx.tellAll].
type replicas struct {
	d      *DB
	config *pgx.ConnConfig
	alone  bool // see [Options]
	clock  clock
	self   string // what comes from here is known already

	pending atomic.Bool                        // work is to be told of
	wake    atomic.Pointer[context.CancelFunc] // ends the waiting for messages
	stop    context.CancelFunc
	ended   chan struct{}
}

const (
	channel = "gatehouse"
	// Messages are "<sender> <what>".
	saidWork    = "work"
	saidChanged = "changed"

	joinLock  = 0x67617465 // the class of the lock of join; turns are of one key, not of two
	joinWait  = 2 * time.Second
	joinPause = 100 * time.Millisecond

	tellGap      = 20 * time.Millisecond // between two messages
	clockPeriod  = 30 * time.Second
	answerMax    = 10 * time.Second // for any one statement of the listener
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 5 * time.Second
)

// connectReplicas connects, asks for the time, and listens until close.
func connectReplicas(ctx context.Context, d *DB, config *pgx.ConnConfig, alone bool) (*replicas, error) {
	r := &replicas{d: d, config: config, alone: alone, self: rand.Text(), ended: make(chan struct{})}
	conn, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	joined, err := r.join(ctx, conn)
	for end := time.Now().Add(joinWait); err == nil && !joined && time.Now().Before(end); {
		time.Sleep(joinPause) // the database may not know yet that the one before was killed
		joined, err = r.join(ctx, conn)
	}
	if err == nil && !joined {
		err = gatehouse.Errorf(gatehouse.CodeConflict, "another server uses it, and they do not share their blobs").
			WithHint("give all servers on one database the same --storage s3://…, or stop the other one")
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go r.run(ctx, conn)
	return r, nil
}

func (r *replicas) close() {
	r.stop()
	<-r.ended
}

// tell has the other replicas look for work. It does not wait.
func (r *replicas) tell() {
	r.pending.Store(true)
	if wake := r.wake.Load(); wake != nil {
		(*wake)()
	}
}

// tellAll tells the other replicas, once per transaction and when it commits,
// that something changed that they wait for.
func (t *Tx) tellAll(ctx context.Context) error {
	if t.news || t.replicas == nil {
		return nil
	}
	t.news = true
	if _, err := t.tx.ExecContext(ctx, t.dialect.notify, channel, t.replicas.self+" "+saidChanged); err != nil {
		return unavailable(err)
	}
	return nil
}

func (r *replicas) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, answerMax+r.config.ConnectTimeout)
	defer stop()
	conn, err := pgx.ConnectConfig(ctx, r.config.Copy())
	if err != nil {
		return nil, err
	}
	if err = settle(ctx, conn); err == nil {
		_, err = conn.Exec(ctx, "LISTEN "+channel)
	}
	if err == nil {
		for range 3 { // the first one also prepares the statement
			if err = r.askTime(ctx, conn); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// join takes a lock for as long as conn lives, one for all processes that share
// their blobs, or for one alone.
func (r *replicas) join(ctx context.Context, conn *pgx.Conn) (joined bool, err error) {
	try := "pg_try_advisory_lock_shared"
	if r.alone {
		try = "pg_try_advisory_lock"
	}
	err = conn.QueryRow(ctx, "SELECT "+try+"($1::INTEGER, hashtext(current_schema()))", joinLock).Scan(&joined)
	return joined, err
}

func (r *replicas) askTime(ctx context.Context, conn *pgx.Conn) error {
	return r.clock.measure(ctx, func(ctx context.Context) (micro int64, err error) {
		err = conn.QueryRow(ctx, "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)").Scan(&micro)
		return micro, err
	})
}

// run listens until ctx ends, and connects again whenever that fails.
func (r *replicas) run(ctx context.Context, conn *pgx.Conn) {
	defer close(r.ended)
	pause := reconnectMin
	for ctx.Err() == nil {
		if conn != nil {
			r.listen(ctx, conn)
			closing, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			if ctx.Err() != nil { // so that the lock is gone when Close returns
				_, _ = conn.Exec(closing, "SELECT pg_advisory_unlock_all()")
			}
			_ = conn.Close(closing) // it is broken, or we end
			stop()
		}
		var err error
		if conn, err = r.connect(ctx); err == nil {
			pause = reconnectMin
			// Who has the lock by now must not stop a server that serves; who
			// comes later meets it.
			_, _ = r.join(ctx, conn)
			// Nobody knows what was said meanwhile.
			r.d.changed.happened()
			r.d.jobs.happened()
			continue
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, reconnectMax)
	}
	if conn != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

// jitter keeps replicas that lost their connection together from coming back
// together.
func jitter(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d)))
	if err != nil {
		return d
	}
	return d/2 + time.Duration(n.Int64())
}

// listen hears and tells until the connection breaks or ctx ends.
func (r *replicas) listen(ctx context.Context, conn *pgx.Conn) {
	asked, told := time.Now(), time.Time{}
	for ctx.Err() == nil {
		said, err := r.hear(ctx, conn, told)
		if err != nil && conn.IsClosed() {
			return
		}
		if from, what, _ := strings.Cut(said, " "); err == nil && from != r.self {
			r.d.changed.happened()
			if what == saidWork {
				r.d.jobs.happened()
			}
		}
		err = nil
		if time.Since(told) >= tellGap && r.pending.Swap(false) {
			told = time.Now()
			err = r.answer(ctx, func(ctx context.Context) error {
				_, err := conn.Exec(ctx, r.d.dialect.notify, channel, r.self+" "+saidWork)
				return err
			})
		}
		if err == nil && time.Since(asked) >= clockPeriod {
			asked = time.Now()
			err = r.answer(ctx, func(ctx context.Context) error { return r.askTime(ctx, conn) })
		}
		if err != nil {
			return
		}
	}
}

// hear waits for a message, until there is something to tell or the time is to
// be asked for: the end of its context does no harm to the connection.
func (r *replicas) hear(ctx context.Context, conn *pgx.Conn, told time.Time) (string, error) {
	patience := clockPeriod
	gap := tellGap - time.Since(told)
	if gap > 0 {
		patience = gap
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if gap <= 0 {
		r.wake.Store(&stop)
		if r.pending.Load() { // since before there was anyone to wake
			stop()
		}
	}
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

func (r *replicas) answer(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, answerMax)
	defer stop()
	return f(ctx)
}
