package s3

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
)

// place is where the store lies.
type place struct {
	host     string // host:port
	secure   bool   // https
	amazon   bool   // no endpoint was given
	bucket   string
	prefix   string // empty, or with a slash at its end
	region   string
	lookup   minio.BucketLookupType
	redirect bool
}

var (
	bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
	regionPattern = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
)

// urlKeys are the settings that the URL may hold.
var urlKeys = []string{"endpoint", "path-style", "redirect", "region"}

func invalid(format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "storage: "+format, args...)
}

// Check reads the URL as [Open] does, and contacts nobody. Errors: CodeInvalid.
func Check(rawURL string, getenv func(string) string) error {
	_, err := parseURL(rawURL, getenv)
	return err
}

// parseURL reads the URL that [Open] documents. Its errors never hold the URL
// itself: a secret may stand in it by mistake.
func parseURL(rawURL string, getenv func(string) string) (p place, err error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "s3" || u.Opaque != "" || u.Fragment != "" {
		return p, invalid("this is not a URL of the form s3://BUCKET/PREFIX?endpoint=https://HOST")
	}
	if u.User != nil {
		return p, invalid("the URL holds credentials").WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
	}
	p.bucket = u.Host
	if !bucketPattern.MatchString(p.bucket) {
		return p, invalid("%q is not a bucket's name", p.bucket).WithHint("write s3://BUCKET/PREFIX; a bucket's name has 3 to 63 lower-case letters, digits, '-' and '.'")
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		if !prefixPattern.MatchString(path) || len(path) > 512 {
			return p, invalid("%q is not a prefix", path).WithHint("use letters, digits, '-', '_', '.' and '/'")
		}
		p.prefix = path + "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return p, invalid("the settings behind '?' cannot be read")
	}
	for key, values := range query {
		if !slices.Contains(urlKeys, key) {
			return p, invalid("the setting %q is unknown", key).WithHint("there are %s", strings.Join(urlKeys, ", "))
		}
		if len(values) != 1 {
			return p, invalid("%s is set more than once", key)
		}
	}
	if err := p.endpoint(query.Get("endpoint")); err != nil {
		return p, err
	}
	return p, p.settings(query, getenv)
}

func (p *place) endpoint(raw string) error {
	if raw == "" {
		p.amazon, p.secure, p.host = true, true, "s3.amazonaws.com"
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return invalid("the endpoint is not of the form https://HOST:PORT")
	}
	if u.User != nil {
		return invalid("the endpoint holds credentials").WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
	}
	p.host, p.secure = u.Host, u.Scheme == "https"
	return nil
}

func (p *place) settings(query url.Values, getenv func(string) string) (err error) {
	for _, region := range []string{query.Get("region"), getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")} {
		if p.region == "" {
			p.region = region
		}
	}
	switch {
	case p.region == "" && p.amazon:
		return invalid("no region is set").WithHint("add ?region=… to the URL, or set AWS_REGION")
	case p.region == "":
		p.region = "us-east-1" // what servers that have no regions expect
	case !regionPattern.MatchString(p.region):
		return invalid("%q is not a region", p.region)
	}
	pathStyle, err := flag(query, "path-style", !p.amazon)
	if err != nil {
		return err
	}
	p.lookup = minio.BucketLookupDNS
	if pathStyle {
		p.lookup = minio.BucketLookupPath
	}
	p.redirect, err = flag(query, "redirect", false)
	return err
}

func flag(query url.Values, key string, otherwise bool) (bool, error) {
	switch query.Get(key) {
	case "":
		return otherwise, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, invalid("%s is neither true nor false", key)
}
