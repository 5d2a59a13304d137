package secret_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

// scan looks at one file in one piece.
func scan(path string, content []byte) []gatehouse.Finding {
	s := secret.NewScanner()
	if !s.Begin(path) {
		return nil
	}
	var found []gatehouse.Finding
	s.Piece(content, 0, true, func(f gatehouse.Finding) { found = append(found, f) })
	return found
}

func ids(found []gatehouse.Finding) (list []string) {
	for _, f := range found {
		list = append(list, f.ID)
	}
	return list
}

// sample is one line of testdata/secrets.txt.
type sample struct {
	rule, path string
	not        bool
	content    string
	secrets    []string // what stood for random bytes
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

var alphabets = map[byte]string{
	'A': digits + lower + upper, 'a': lower + upper, 'L': lower, 'U': upper, 'l': digits + lower, 'P': digits + upper, 'D': digits,
	'h': digits + "abcdef", 'X': digits + "abcdefABCDEF", 'B': digits + lower + upper + "+/", 'S': digits + lower + upper + "-_", '2': upper + "234567",
}

var blank = regexp.MustCompile(`\{([AaLUlPDhXBS2])(\d+)\}|\{u\}`)

// samples reads the file; random parts are the same in each run.
func samples(t testing.TB) []sample {
	t.Helper()
	b, err := os.ReadFile("testdata/secrets.txt")
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(kind byte, n int) string {
		all, out := alphabets[kind], make([]byte, n)
		if kind == '2' { // an azure token is lower case, an AWS key upper
			all = alphabets['2']
		}
		for i := range out {
			out[i] = all[random.IntN(len(all))]
		}
		return string(out)
	}
	var list []sample
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.SplitN(line, " | ", 3)
		if len(f) != 3 {
			t.Fatalf("bad line %q", line)
		}
		s := sample{rule: strings.TrimPrefix(f[0], "!"), path: f[1], not: f[0][0] == '!'}
		text := strings.NewReplacer(`\\n`, `\n`, `\n`, "\n").Replace(f[2])
		s.content = blank.ReplaceAllStringFunc(text, func(m string) string {
			out := ""
			if m == "{u}" {
				out = strings.Join([]string{fill('h', 8), fill('h', 4), fill('h', 4), fill('h', 4), fill('h', 12)}, "-")
			} else {
				n, _ := strconv.Atoi(m[2 : len(m)-1])
				out = fill(m[1], n)
				if m[1] == '2' && strings.Contains(s.rule, "azure") {
					out = strings.ToLower(out)
				}
			}
			if len(out) >= 8 {
				s.secrets = append(s.secrets, out)
			}
			return out
		})
		list = append(list, s)
	}
	return list
}

// TestSamples finds what the vendors' formats describe, names it rightly, and
// shows nothing of it.
func TestSamples(t *testing.T) {
	covered := map[string]bool{}
	for i, s := range samples(t) {
		t.Run(fmt.Sprintf("%s/%d", s.rule, i), func(t *testing.T) {
			content := "# a line before\n" + s.content + "\n# and one behind\n"
			found := scan(s.path, []byte(content))
			if got := slices.Contains(ids(found), s.rule); got == s.not {
				t.Fatalf("found %v in %q", ids(found), s.content)
			}
			if s.not {
				return
			}
			covered[s.rule] = true
			for _, f := range found {
				for _, hidden := range s.secrets {
					for n := 0; n+6 <= len(hidden); n++ {
						if strings.Contains(f.Location.Excerpt, hidden[n:n+6]) {
							t.Fatalf("the excerpt %q shows the secret", f.Location.Excerpt)
						}
					}
				}
				if f.Kind != gatehouse.KindSecret || f.Title == "" || f.Resolution == "" || f.Severity == gatehouse.SeverityUnknown || f.Location.StartLine < 2 {
					t.Errorf("%+v %+v", f, f.Location)
				}
			}
			if len(found) > 1 && !strings.Contains(s.path, "config") {
				t.Errorf("one secret is told as %v", ids(found))
			}
		})
	}
	for _, r := range secret.Rules() {
		if !covered[r.ID] && r.ID != "variable-by-name" {
			t.Errorf("no sample of %s", r.ID)
		}
	}
	if n := len(covered); n < 150 {
		t.Errorf("only %d kinds", n)
	}
}

// TestPieces: wherever a file is cut, each secret is found once, at its line.
func TestPieces(t *testing.T) {
	var content bytes.Buffer
	var want []string
	random := rand.New(rand.NewPCG(3, 4))
	for content.Len() < 200<<10 {
		for range random.IntN(60) {
			fmt.Fprintf(&content, "line %d of ordinary text\n", random.IntN(1000))
		}
		key := make([]byte, 36)
		for i := range key {
			key[i] = alphabets['A'][random.IntN(62)]
		}
		fmt.Fprintf(&content, "token = ghp_%s\n", key)
		want = append(want, strconv.Itoa(bytes.Count(content.Bytes(), []byte("\n"))))
	}
	all := content.Bytes()
	const overlap = secret.Ahead + secret.Back
	for _, size := range []int{overlap + 1, 6000, 65536, 1 << 20} {
		s := secret.NewScanner()
		s.Begin("app/log")
		var got []string
		seen, start := 0, 0
		for {
			end := min(start+size, len(all))
			s.Piece(all[start:end], seen, end == len(all), func(f gatehouse.Finding) { got = append(got, strconv.Itoa(f.Location.StartLine)) })
			if end == len(all) {
				break
			}
			seen = min(end-start, overlap)
			start = end - seen
		}
		if most := want[:min(len(want), 100)]; !slices.Equal(got, most) {
			t.Errorf("pieces of %d bytes: lines %v, want %v", size, got, most)
		}
	}
}

// TestEncodedKeys: the base64 of a PEM key is known whatever its kind.
func TestEncodedKeys(t *testing.T) {
	body := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n", 6)
	for _, kind := range []string{"RSA ", "", "EC ", "OPENSSH ", "DSA ", "ENCRYPTED "} {
		pem := "-----BEGIN " + kind + "PRIVATE KEY-----\n" + body + "-----END " + kind + "PRIVATE KEY-----\n"
		found := scan("root/.kube/config", []byte("client-key-data: "+base64.StdEncoding.EncodeToString([]byte(pem))+"\n"))
		if !slices.Contains(ids(found), "private-key-base64") {
			t.Errorf("%s: %v", kind, ids(found))
		}
	}
}

func TestAllowedPaths(t *testing.T) {
	for path, looked := range map[string]bool{
		"app/.env": true, "usr/share/nginx/html/app.js": true, "usr/bin/tool": true, "srv/tests/settings.ini": true,
		"usr/lib/python3/dist-packages/app/config.py": true, "opt/app/node_modules/x/index.js": true,
		"usr/share/doc/x/README": false, "usr/lib/python3.11/ssl.py": false, "opt/app/node_modules/x/test/key.js": false,
		"app/README.md": false, "usr/local/go/src/crypto/x.go": false, "app/package-lock.json": false, "usr/share/locale/de/x": false,
	} {
		if got := secret.NewScanner().Begin(path); got != looked {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestBinaries: tokens are found in programs, private keys and assignments are
// not looked for there, and pictures and archives not at all.
func TestBinaries(t *testing.T) {
	token := "ghp_" + strings.Repeat("a1B2c3D4e", 4)
	key := "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n", 3)
	program := "\x7fELF\x02\x01\x00\x00" + strings.Repeat("\x00", 100) + token + "\x00" + key
	if got := ids(scan("app/bin", []byte(program))); !slices.Equal(got, []string{"github-pat"}) {
		t.Errorf("program: %v", got)
	}
	if got := scan("app/x.png", []byte("\x89PNG\r\n\x1a\n\x00"+token)); len(got) != 0 {
		t.Errorf("picture: %v", ids(got))
	}
	if got := scan("app/data", []byte("\x00\x01\x02\x03"+token)); len(got) != 0 {
		t.Errorf("data: %v", ids(got))
	}
}

// TestWorkIsBounded: a file of nothing but beginnings of secrets ends the look
// at it, and says so.
func TestWorkIsBounded(t *testing.T) {
	s := secret.NewScanner()
	piece := []byte(strings.Repeat("postgres://a:b@-----BEGIN X PRIVATE KEY-----\n", 3000))
	s.Begin("app/x")
	for i := range 10_000 {
		if !s.Piece(piece, 0, i == 9_999, func(gatehouse.Finding) {}) {
			if !s.GaveUp() {
				t.Fatal("it stopped without saying why")
			}
			return
		}
	}
	t.Error("it never gave up")
}

func TestManySecretsOfOneFile(t *testing.T) {
	s := secret.NewScanner()
	s.Begin("app/x")
	var b bytes.Buffer
	random := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		b.WriteString("ghp_")
		for range 36 {
			b.WriteByte(alphabets['A'][random.IntN(62)])
		}
		b.WriteByte('\n')
	}
	n := 0
	if s.Piece(b.Bytes(), 0, true, func(gatehouse.Finding) { n++ }) || !s.Full() || n != 100 {
		t.Errorf("%d findings, full %v", n, s.Full())
	}
}

// TestSeveralInOneLine: no excerpt shows the neighbour.
func TestSeveralInOneLine(t *testing.T) {
	a, b := "ghp_"+strings.Repeat("a1B2c3D4e", 4), "sk_live_"+strings.Repeat("Zy9Xw8Vu7T", 3)
	found := scan("app/x", []byte("login hunter2 with "+a+","+b+" and postgres://app:"+"correct9horse@db/x"))
	if len(found) != 3 {
		t.Fatalf("%v", ids(found))
	}
	for _, f := range found {
		for _, hidden := range []string{"a1B2", "Zy9X", "hunter2", "correct"} {
			if strings.Contains(f.Location.Excerpt, hidden) {
				t.Errorf("%s: %q", f.ID, f.Location.Excerpt)
			}
		}
	}
}
