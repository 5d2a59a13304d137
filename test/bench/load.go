package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// target is a server under load.
type target struct {
	name      string
	addr      string // HOST:PORT
	pid       int
	authorize func(repo string) (string, error) // the Authorization header; nil: none
}

// client is one kept-alive connection. It is thin on purpose: it shares the
// processors with the server, and what it uses makes all servers look alike.
type client struct {
	target *target
	conn   net.Conn
	in     *bufio.Reader
	out    bytes.Buffer
	buf    []byte
	tokens map[string]string // Authorization by repository
}

const (
	copyBuffer = 256 << 10
	opTimeout  = time.Minute
)

func dial(t *target) (*client, error) {
	conn, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	return &client{target: t, conn: conn, in: bufio.NewReaderSize(conn, 16<<10), buf: make([]byte, copyBuffer), tokens: map[string]string{}}, nil
}

func (c *client) close() { c.conn.Close() }

// answer is a response whose body has been read, or thrown away.
type answer struct {
	status int
	header http.Header
	size   int64 // of the body
	body   []byte
}

// do sends one request about a repository and reads its whole answer. Bodies
// of more than keep bytes are counted and dropped.
func (c *client) do(method, repo, path string, body []byte, headers ...string) (answer, error) {
	const keep = 1 << 20
	auth, ok := c.tokens[repo]
	if !ok && c.target.authorize != nil {
		var err error
		if auth, err = c.target.authorize(repo); err != nil {
			return answer{}, err
		}
		c.tokens[repo] = auth
	}
	c.out.Reset()
	fmt.Fprintf(&c.out, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, c.target.addr)
	if auth != "" {
		fmt.Fprintf(&c.out, "Authorization: %s\r\n", auth)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(&c.out, "%s: %s\r\n", headers[i], headers[i+1])
	}
	if body != nil || method != "GET" && method != "HEAD" {
		fmt.Fprintf(&c.out, "Content-Length: %d\r\n", len(body))
	}
	c.out.WriteString("\r\n")
	if err := c.conn.SetDeadline(time.Now().Add(opTimeout)); err != nil {
		return answer{}, err
	}
	if _, err := (&net.Buffers{c.out.Bytes(), body}).WriteTo(c.conn); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.ContentLength >= 0 && resp.ContentLength <= keep || resp.StatusCode >= 400 {
		a.body, err = io.ReadAll(io.LimitReader(resp.Body, keep))
		a.size = int64(len(a.body))
		return a, err
	}
	a.size, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, c.buf)
	return a, err
}

// want is do with one good answer.
func (c *client) want(status int, method, repo, path string, body []byte, headers ...string) (answer, error) {
	a, err := c.do(method, repo, path, body, headers...)
	if err == nil && a.status != status {
		err = fmt.Errorf("%s: %s %s: %d %s", c.target.name, method, path, a.status, a.body)
	}
	return a, err
}

// pushBlob uploads a blob as docker, podman, skopeo and crane do: is it there,
// open a session, send all bytes, commit.
func (c *client) pushBlob(repo, digest string, body []byte) error {
	if a, err := c.do("HEAD", repo, "/v2/"+repo+"/blobs/"+digest, nil); err != nil || a.status == http.StatusOK {
		return err
	}
	a, err := c.want(http.StatusAccepted, "POST", repo, "/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	at, err := location(a)
	if err != nil {
		return err
	}
	if a, err = c.want(http.StatusAccepted, "PATCH", repo, at, body, "Content-Type", "application/octet-stream"); err != nil {
		return err
	}
	if at, err = location(a); err != nil {
		return err
	}
	with := "?"
	if strings.Contains(at, "?") {
		with = "&"
	}
	_, err = c.want(http.StatusCreated, "PUT", repo, at+with+"digest="+digest, nil)
	return err
}

func location(a answer) (string, error) {
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Path == "" {
		return "", fmt.Errorf("the Location %q leads nowhere", a.header.Get("Location"))
	}
	return u.RequestURI(), nil
}

// pushManifest puts a manifest under a tag.
func (c *client) pushManifest(repo, tag string, body []byte) error {
	_, err := c.want(http.StatusCreated, "PUT", repo, "/v2/"+repo+"/manifests/"+tag, body, "Content-Type", manifestType)
	return err
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// load is what a measured round consists of.
type load struct {
	clients int
	// time is how long a round lasts; zero: until count operations are done.
	time  time.Duration
	count int
	// prepare is called before each round, on nobody's time.
	prepare func() error
	// op is one operation; n counts them through the round, from 0.
	op func(c *client, n int) error
	// settle waits after the round until the server has done what it put off;
	// its CPU time counts.
	settle func(t *target) error
}

// measured is one round on one target.
type measured struct {
	rate float64       // operations per second
	cpu  time.Duration // of the server, per operation
}

// run carries out one round on fresh connections.
func (l load) run(ctx context.Context, t *target) (m measured, err error) {
	if l.prepare != nil {
		if err := l.prepare(); err != nil {
			return m, err
		}
	}
	clients := make([]*client, l.clients)
	for i := range clients {
		if clients[i], err = dial(t); err != nil {
			return m, err
		}
		defer clients[i].close()
	}
	before, err := processCPU(t.pid)
	if err != nil {
		return m, err
	}
	start := time.Now()
	done, err := l.each(ctx, clients, start)
	took := time.Since(start)
	if err == nil && l.settle != nil {
		err = l.settle(t)
	}
	if err != nil {
		return m, err
	}
	after, err := processCPU(t.pid)
	if err != nil || done == 0 {
		return m, errors.Join(err, ctx.Err())
	}
	return measured{rate: float64(done) / took.Seconds(), cpu: (after - before) / time.Duration(done)}, nil
}

// each lets every client work until the round is over.
func (l load) each(ctx context.Context, clients []*client, start time.Time) (done int, err error) {
	var mu sync.Mutex // guards begun, done, err
	begun := 0
	next := func() (n int, more bool) {
		mu.Lock()
		defer mu.Unlock()
		over := l.time > 0 && time.Since(start) >= l.time || l.time == 0 && begun >= l.count
		if over || err != nil || ctx.Err() != nil {
			return 0, false
		}
		begun++
		return begun - 1, true
	}
	ended := func(failed error) {
		mu.Lock()
		defer mu.Unlock()
		if err = errors.Join(err, failed); failed == nil {
			done++
		}
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for n, more := next(); more; n, more = next() {
				ended(l.op(c, n))
			}
		})
	}
	wg.Wait()
	return done, errors.Join(err, ctx.Err())
}

// rounds measures targets alternately and returns what each round found, by
// target. The first target goes first in even rounds, last in odd ones. A short
// round of each that comes first does not count.
func rounds(ctx context.Context, n int, l load, targets ...*target) ([][]measured, error) {
	out := make([][]measured, len(targets))
	warm := l
	if l.time > 0 {
		warm.time = min(l.time, 200*time.Millisecond)
	} else {
		warm.count = max(1, l.count/4)
	}
	for _, t := range targets {
		if _, err := warm.run(ctx, t); err != nil {
			return nil, err
		}
	}
	for round := range n {
		for k := range targets {
			i := k
			if round%2 == 1 {
				i = len(targets) - 1 - k
			}
			m, err := l.run(ctx, targets[i])
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], m)
		}
	}
	return out, nil
}

// ratio is the median over the rounds of how many times faster a was than b,
// and of how many times less CPU it used.
func ratio(a, b []measured) (rate, cpu float64) {
	var rates, cpus []float64
	for i := range a {
		rates = append(rates, a[i].rate/b[i].rate)
		cpus = append(cpus, float64(b[i].cpu)/float64(max(1, a[i].cpu)))
	}
	return middle(rates), middle(cpus)
}

func middle(list []float64) float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

// typical is the median round: rate and CPU each by itself.
func typical(list []measured) measured {
	var rates, cpus []float64
	for _, m := range list {
		rates, cpus = append(rates, m.rate), append(cpus, float64(m.cpu))
	}
	return measured{rate: middle(rates), cpu: time.Duration(middle(cpus))}
}

func (m measured) String() string {
	return fmt.Sprintf("%s/s at %s CPU", short(m.rate), m.cpu.Round(max(1, m.cpu/1000)))
}

// short prints a number with three digits, and never with an exponent.
func short(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// beside makes the rows of one comparison: the ratio with its limit (0: none),
// and what stands behind it.
func beside(what string, limit float64, ours, theirs *target, list [][]measured) []row {
	rate, cpu := ratio(list[0], list[1])
	head := row{what: what, measured: short(rate) + " x"}
	if limit > 0 {
		head = atLeast(what, rate, limit, "x")
	}
	return []row{head, {
		what:     "— " + ours.name + "; " + theirs.name,
		measured: fmt.Sprintf("%s; %s (CPU %s x)", typical(list[0]), typical(list[1]), short(cpu)),
	}}
}

// processCPU is the user and system time that a process has used, all its
// threads (proc(5)). The kernel counts it in nanoseconds and shows hundredths
// of a second.
func processCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; utime and stime are the 12th
	// and 13th field behind it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has too few fields", pid)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 on Linux
}

// settled waits until a server has used next to no CPU for a moment: background
// work of one round must not disturb the other server's.
func settled(t *target) error {
	const step, calm = 100 * time.Millisecond, 2
	last, err := processCPU(t.pid)
	for still, start := 0, time.Now(); err == nil && still < calm && time.Since(start) < startWait; {
		time.Sleep(step)
		var now time.Duration
		if now, err = processCPU(t.pid); now-last <= step/10 {
			still++
		} else {
			still = 0
		}
		last = now
	}
	return err
}
