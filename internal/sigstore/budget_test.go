package sigstore_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

// budgeted is a log whose addresses are what clients say, and who is known what
// the test says.
type budgeted struct {
	*rekor
	friends [][]byte // keys
	refused []string
	added   map[bool]int // bytes, by whether who signed is known
}

func newBudgeted(t *testing.T, tune func(*sigstore.RekorOptions)) *budgeted {
	b := &budgeted{added: map[bool]int{}}
	b.rekor = newRekor(t, func(o *sigstore.RekorOptions) {
		o.Addr = func(req *http.Request) string { return req.Header.Get("X-Who") }
		o.Known = func(_, key []byte) bool {
			return slices.ContainsFunc(b.friends, func(f []byte) bool { return bytes.Equal(f, key) })
		}
		o.Refused = func(reason string) { b.refused = append(b.refused, reason) }
		o.Added = func(known bool, n int) { b.added[known] += n }
		tune(o)
	})
	return b
}

// try sends an entry and returns the status, and after how many seconds to ask
// again.
func (b *budgeted) try(who string, request object) (status, retry int) {
	b.t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/api/v2/log/entries", bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("X-Who", who)
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	switch code := map[int]string{201: `"logIndex":`, 429: `"code":8,`, 403: `"code":7,`}[res.StatusCode]; {
	case code == "" || !strings.Contains(string(answer), code):
		b.t.Errorf("%d %s", res.StatusCode, answer)
	case res.StatusCode == http.StatusTooManyRequests:
		if retry, err = strconv.Atoi(res.Header.Get("Retry-After")); err != nil {
			b.t.Errorf("Retry-After: %v", err)
		}
	}
	return res.StatusCode, retry
}

// sizeOf is the size of the entry of a request.
func sizeOf(t *testing.T, request object) int64 {
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	_, entry, err := sigstore.Entry(body)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(entry))
}

// TestBudget: an address, and all together, have so many bytes per day; what the
// log has already costs nothing, and who is known has a budget of its own.
func TestBudget(t *testing.T) {
	first := sign256(t, "0").request()
	size := sizeOf(t, first) // give or take the few bytes that signatures differ by
	b := newBudgeted(t, func(o *sigstore.RekorOptions) { o.Budget = sigstore.Budget{Address: 5 * size / 2, All: 9 * size / 2} })
	want := func(what, who string, request object, status int) (retry int) {
		t.Helper()
		got, retry := b.try(who, request)
		if got != status {
			t.Errorf("%s: %d, want %d", what, got, status)
		}
		return retry
	}
	want("the first", "one", first, 201)
	for range 5 {
		want("the first again", "one", first, 201)
	}
	want("the second", "one", sign256(t, "1").request(), 201)
	// Half an entry is missing, and five halves come back in a day.
	if retry := want("the third", "one", sign256(t, "2").request(), 429); retry < 4*3600 || retry > 6*3600 {
		t.Errorf("ask again after %d s, want about 5 hours", retry)
	}
	want("what is there", "one", first, 429) // nothing is left to find that out with
	want("another's first", "two", sign256(t, "3").request(), 201)
	want("another's second", "two", sign256(t, "4").request(), 201)
	// That was refused to all costs its address nothing.
	for range 5 {
		if retry := want("a third one's", "three", sign256(t, "5").request(), 429); retry < 1*3600 || retry > 4*3600 {
			t.Errorf("ask again after %d s, want about 2.7 hours", retry)
		}
	}
	if !slices.Equal(b.refused, []string{"address-budget", "address-budget", "budget", "budget", "budget", "budget", "budget"}) {
		t.Errorf("refused: %q", b.refused)
	}
	friend := sign256(t, "6")
	b.friends = [][]byte{friend.pub}
	want("one who is known", "one", friend.request(), 201)
	if n := b.added[false]; n < int(4*size)-40 || n > int(4*size)+40 || b.added[true] == 0 {
		t.Errorf("%v bytes were added", b.added)
	}
}

// TestKnownOnly: a log may take entries of those alone whom it knows.
func TestKnownOnly(t *testing.T) {
	b := newBudgeted(t, func(o *sigstore.RekorOptions) { o.KnownOnly = true })
	friend, stranger := sign256(t, "a"), sign256(t, "b")
	b.friends = [][]byte{friend.pub}
	for _, c := range []struct {
		name    string
		request object
		want    int
	}{
		{"a friend", friend.request(), 201},
		{"a stranger", stranger.request(), 403},
		{"an envelope of a friend", envelope(t, "x", friend), 201},
		{"an envelope of both", envelope(t, "x", friend, stranger), 403},
	} {
		if got, _ := b.try("one", c.request); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if !slices.Equal(b.refused, []string{"unknown-signer", "unknown-signer"}) {
		t.Errorf("refused: %q", b.refused)
	}
}

// TestCompressing: nobody can have the server compress for ever; whoever has had
// enough gets the same bytes as they are.
func TestCompressing(t *testing.T) {
	t.Cleanup(sigstore.Zipped(1, 5000))
	r := newRekor(t, func(o *sigstore.RekorOptions) {
		o.Addr = func(req *http.Request) string { return req.Header.Get("X-Who") }
	})
	r.add(sign256(t, "artifact").request())
	get := func(who string) (encoding string, body []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/log/tile/entries/000.p/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Who", who)
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err = io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("%d %v", res.StatusCode, err)
		}
		return res.Header.Get("Content-Encoding"), body
	}
	if encoding, _ := get("one"); encoding != "gzip" {
		t.Errorf("the first: %q", encoding)
	}
	var encoding string
	var body []byte
	for range 20 {
		encoding, body = get("one")
	}
	if encoding != "" || !bytes.Contains(body, []byte(`"hashedRekordV002"`)) {
		t.Errorf("after 20: %q, %d bytes", encoding, len(body))
	}
	if encoding, _ := get("two"); encoding != "gzip" {
		t.Errorf("another address: %q", encoding)
	}
}
