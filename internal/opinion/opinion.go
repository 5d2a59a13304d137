// Package opinion asks other scanners about images of this registry: anything
// that speaks the scanner API of Harbor, or a Clair v4. What goes in is where an
// image lies and what lets its bearer pull it; what comes out is what the other
// scanner found, in our words, and [Compare] says how that differs from what we
// found. It never changes a finding of ours, stores nothing, and opens no
// connection: the client is handed in.
package opinion

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of what a foreign scanner may say.
const (
	AnswerSizeMax = 64 << 20 // bytes of one answer
	FindingsMax   = 50_000
	layersMax     = 4096
	textMax       = 512 // bytes of a name or version
	aliasesMax    = 50
	pollMin       = time.Second
	pollMax       = time.Minute
	pollDefault   = 5 * time.Second
)

// Image is what another scanner is asked about.
type Image struct {
	// Registry is the base URL of this registry as the scanner reaches it,
	// without a path: "https://registry.example".
	Registry  string
	Repo      gatehouse.Repo
	Digest    gatehouse.Digest // of the image manifest
	MediaType string
	Layers    []gatehouse.Digest // lowest first, as they are stored
	// Authorization is the value of the header that lets its bearer pull. It is a
	// secret and must be short-lived.
	Authorization string
}

// Finding is one vulnerability of one package as another scanner has it.
type Finding struct {
	ID           string             `json:"id"`
	Aliases      []string           `json:"aliases,omitempty"`
	Package      string             `json:"package"`
	Source       string             `json:"source,omitempty"` // source package, where it is told
	Version      string             `json:"version"`
	FixedVersion string             `json:"fixedVersion,omitempty"`
	Severity     gatehouse.Severity `json:"severity"`
}

// Opinion is what another scanner said of an image.
type Opinion struct {
	Scanner     string    `json:"scanner"`
	Version     string    `json:"version,omitempty"`
	GeneratedAt time.Time `json:"generatedAt,omitzero"`
	Findings    []Finding `json:"findings"`
	// Incomplete says what the scanner could not look at, as far as it tells.
	Incomplete []string `json:"incomplete,omitempty"`
}

// Options say whom to ask.
type Options struct {
	// Source is "harbor+https://HOST[/PATH]" or "clair+https://HOST[/PATH]"; http
	// is taken, too.
	Source string
	// Token opens the scanner: USER:PASSWORD or a bearer token of an adapter; the
	// base64 of the pre-shared key of a Clair. Empty: it asks for nothing.
	Token string
	// Client opens the connections. Redirects are not followed. Required.
	Client *http.Client
	// Wait pauses between two looks at a scan; nil is a timer.
	Wait func(ctx context.Context, d time.Duration) error
	Now  func() time.Time
}

// Scanner is another scanner. It is safe for concurrent use.
type Scanner struct {
	name string
	ask  func(context.Context, Image) (Opinion, error)
}

// Name is the source without the token: what its opinions are kept under.
func (s *Scanner) Name() string { return s.name }

// Ask has an image scanned and waits until that is over or ctx ends. Nothing is
// cached. Errors: CodeUnavailable (it does not answer, or could not scan the
// image), CodeInvalid and CodeTooLarge (its answer is not what its API says),
// CodeDenied (it does not let us in).
func (s *Scanner) Ask(ctx context.Context, img Image) (Opinion, error) {
	if len(img.Layers) > layersMax {
		return Opinion{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has more than %d layers", layersMax)
	}
	o, err := s.ask(ctx, img)
	if err != nil {
		return Opinion{}, err
	}
	if o.Findings == nil {
		o.Findings = []Finding{}
	}
	return o, nil
}

// ParseSource checks a source and splits it. Errors: CodeInvalid, which does not
// repeat what may hold a password.
func ParseSource(source string) (kind string, base *url.URL, err error) {
	kind, rest, ok := strings.Cut(source, "+")
	u, err := url.Parse(rest)
	if !ok || kind != "harbor" && kind != "clair" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the source is neither harbor+https://HOST/PATH nor clair+https://HOST/PATH").
			WithHint("a password or key is a setting of its own")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return kind, u, nil
}

// New makes a client of another scanner. It asks nothing yet.
func New(o Options) (*Scanner, error) {
	kind, base, err := ParseSource(o.Source)
	if err != nil {
		return nil, err
	}
	if o.Wait == nil {
		o.Wait = pause
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	client := *o.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w := &web{client: &client, base: base, wait: o.Wait}
	s := &Scanner{name: kind + "+" + base.String()}
	if kind == "clair" {
		c := &clair{web: w, now: o.Now}
		if c.key, err = clairKey(o.Token); err != nil {
			return nil, err
		}
		s.ask = c.ask
		return s, nil
	}
	w.authorize = adapterToken(o.Token)
	s.ask = (&harbor{web: w}).ask
	return s, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// text bounds what a foreign scanner says and takes out what does not print.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > textMax {
		s = strings.ToValidUTF8(s[:textMax], "")
	}
	return s
}

// tidy bounds a finding. ok is false for one without a name or a package.
func (f Finding) tidy() (Finding, bool) {
	f.ID, f.Package, f.Source, f.Version, f.FixedVersion = text(f.ID), text(f.Package), text(f.Source), text(f.Version), text(f.FixedVersion)
	var aliases []string
	for _, a := range f.Aliases {
		if a = text(a); a != "" && a != f.ID && !slices.Contains(aliases, a) && len(aliases) < aliasesMax {
			aliases = append(aliases, a)
		}
	}
	f.Aliases = aliases
	return f, f.ID != "" && f.Package != ""
}

func invalid(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the other scanner's answer: "+format, args...)
}

func tooMany() error {
	return gatehouse.Errorf(gatehouse.CodeTooLarge, "the other scanner lists more than %d vulnerabilities", FindingsMax)
}
