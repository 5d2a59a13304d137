// Package nvd reads the National Vulnerability Database in its JSON 2.0 format:
// answers of the API and the yearly files, unpacked. Out come records without
// packages: NVD names products by CPE, which are no packages, but it rates,
// scores and describes flaws, and says which CVEs were rejected.
package nvd

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

// Source is what [gatehouse.Advisory] names as its format, and who rates.
const Source = "nvd"

// Limits bound what one file may cost. A field that is zero allows nothing.
type Limits struct {
	Records     int
	RecordBytes int64
	TotalBytes  int64
}

// DefaultLimits are some ten times what all of NVD has.
func DefaultLimits() Limits {
	return Limits{Records: 5_000_000, RecordBytes: 16 << 20, TotalBytes: 32 << 30}
}

// entry is one element of "vulnerabilities".
type entry struct {
	CVE struct {
		ID           string `json:"id"`
		Published    string `json:"published"`
		LastModified string `json:"lastModified"`
		VulnStatus   string `json:"vulnStatus"`
		Tags         []struct {
			Tags []string `json:"tags"`
		} `json:"cveTags"`
		Descriptions []struct {
			Lang  string `json:"lang"`
			Value string `json:"value"`
		} `json:"descriptions"`
		Metrics struct {
			V40 []metric `json:"cvssMetricV40"`
			V31 []metric `json:"cvssMetricV31"`
			V30 []metric `json:"cvssMetricV30"`
			V2  []metric `json:"cvssMetricV2"`
		} `json:"metrics"`
		References []struct {
			URL string `json:"url"`
		} `json:"references"`
	} `json:"cve"`
}

type metric struct {
	Source string `json:"source"`
	Data   struct {
		Vector string `json:"vectorString"`
	} `json:"cvssData"`
}

// Read reads the document as a stream that ends at its first error.
// Errors: CodeInvalid, also for a document that is cut short, and CodeTooLarge.
func Read(ctx context.Context, r io.Reader, limits Limits) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		d := unpack.NewJSON(r, limits.TotalBytes, limits.RecordBytes)
		n := 0
		err := d.Object(func(key string) error {
			if key != "vulnerabilities" {
				return d.Skip()
			}
			return d.Array(func() error {
				if n++; n > limits.Records {
					return gatehouse.Errorf(gatehouse.CodeTooLarge, "there are more than %d vulnerabilities", limits.Records)
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				a, err := one(d)
				if err != nil {
					return about(n, err)
				}
				if !yield(a, nil) {
					return errStop
				}
				return nil
			})
		})
		if err == nil && n == 0 {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "the file holds no vulnerability")
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(gatehouse.Advisory{}, err)
		}
	}
}

// errStop ends the reading where the reader has enough.
var errStop = errors.New("stop")

func about(n int, err error) error {
	var known *gatehouse.Error
	if errors.As(err, &known) {
		return gatehouse.Errorf(known.Code, "vulnerability number %d: %w", n, err)
	}
	return err
}

func one(d *unpack.JSON) (a gatehouse.Advisory, err error) {
	var e entry
	if err := d.Decode(&e); err != nil {
		return a, err
	}
	c := &e.CVE
	if err := field.CVE(c.ID); err != nil {
		return a, err
	}
	a = gatehouse.Advisory{ID: c.ID, Source: Source}
	if a.Published, err = timestamp("published", c.Published); err != nil {
		return a, err
	}
	if a.Modified, err = timestamp("lastModified", c.LastModified); err != nil {
		return a, err
	}
	for _, text := range c.Descriptions {
		if text.Lang == "en" && a.Details == "" {
			a.Details = field.Text(text.Value, field.DetailsMax, true)
		}
	}
	if strings.EqualFold(c.VulnStatus, "Rejected") {
		// The record stays, so that it is known that the CVE was taken back.
		a.Withdrawn = latest(a.Modified, a.Published)
		return a, nil
	}
	for _, list := range [][]metric{c.Metrics.V40, c.Metrics.V31, c.Metrics.V30, c.Metrics.V2} {
		for _, m := range list {
			if s, ok := field.Score(m.Data.Vector); ok && m.Data.Vector != "" {
				s.Source = sourceName(m.Source)
				a.CVSS = append(a.CVSS, s)
			}
		}
	}
	a.Severity, a.SeveritySource = rate(a.CVSS)
	var links []string
	for _, ref := range c.References {
		links = append(links, ref.URL)
	}
	a.References = field.References(links)
	for _, t := range c.Tags {
		if slices.Contains(t.Tags, "disputed") && !strings.HasPrefix(a.Details, disputed) {
			a.Details = disputed + " " + a.Details
		}
	}
	return a, nil
}

// disputed is how CVE marked disputed flaws before it had tags.
const disputed = "** DISPUTED **"

// rate takes NVD's own newest score, else the newest of another.
func rate(scores []gatehouse.CVSS) (gatehouse.Severity, string) {
	if len(scores) == 0 {
		return gatehouse.SeverityUnknown, ""
	}
	best := slices.MaxFunc(scores, func(a, b gatehouse.CVSS) int {
		return cmp.Or(own(a)-own(b), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Score, b.Score))
	})
	return best.Severity(), best.Source
}

func own(c gatehouse.CVSS) int {
	if c.Source == Source {
		return 1
	}
	return 0
}

// sources are who scores, by NVD's identifiers; the identifier stands for
// others.
var sources = map[string]string{
	"nvd@nist.gov":                         Source,
	"security-advisories@github.com":       "ghsa",
	"secalert@redhat.com":                  "redhat",
	"134c704f-9b21-4f2e-91b3-4a467353bcc0": "cisa-adp",
}

func sourceName(id string) string {
	if name, ok := sources[id]; ok {
		return name
	}
	return field.Text(id, field.IDMax, false)
}

// timestamp reads NVD's times, which name no zone and are in UTC.
func timestamp(what, s string) (time.Time, error) {
	if t, err := time.Parse("2006-01-02T15:04:05", s); err == nil { // fractions are read too
		return t, nil
	}
	return field.Time(what, s)
}

// latest is a time that is certainly not zero.
func latest(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Unix(0, 0).UTC()
}
