package config

import (
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// redacted stands for a secret in what people see.
const redacted = "REDACTED"

// Print writes every setting with its environment variable, as a file that
// [Load] reads back, passwords left out.
func Print(w io.Writer, c Config) error {
	c = c.Redacted()
	keys := Keys()
	for i, v := range c.Values() {
		var value any = v.String()
		switch v.field.Kind() {
		case reflect.Slice:
			value = slices.Concat([]string{}, v.field.Interface().([]string))
		case reflect.Bool, reflect.Int, reflect.Float64:
			value = v.field.Interface()
		}
		b, err := yaml.Marshal(map[string]any{keys[i]: value})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "# --%s, %s\n%s", keys[i], EnvName(keys[i]), b); err != nil {
			return err
		}
	}
	return nil
}

// Redacted is c without passwords, for people and logs.
func (c Config) Redacted() Config {
	c.Database = redactURL(c.Database)
	c.Storage = redactURL(c.Storage)
	c.TraceEndpoint = redactURL(c.TraceEndpoint)
	for _, secret := range []*string{&c.ScannerAdapterToken, &c.SecondOpinionToken, &c.SigstorePassphrase} {
		if *secret != "" {
			*secret = redacted
		}
	}
	c.Feeds = slices.Clone(c.Feeds)
	for i, feed := range c.Feeds { // NAME=URL
		if name, where, ok := strings.Cut(feed, "="); ok && strings.Contains(where, "://") {
			c.Feeds[i] = name + "=" + redactURL(where)
		}
	}
	return c
}

// secretWords mark the parameters of a URL that hold secrets, as PostgreSQL
// (password, sslpassword) and S3 clients call them.
var secretWords = []string{"password", "secret", "token", "key"}

func redactURL(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.Fragment != "" {
		return redacted // no URL as it was meant: anything in it may be the secret
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), redacted)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil { // what cannot be read would be left as it is
		u.RawQuery = redacted
		return u.String()
	}
	for name := range q {
		// sslkey names a file.
		if name != "sslkey" && slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(strings.ToLower(name), w) }) {
			q.Set(name, redacted)
			u.RawQuery = q.Encode()
		}
	}
	return u.String()
}
