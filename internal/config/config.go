// Package config holds every setting of the server in one struct. A setting can
// come from a flag, an environment variable or one YAML file; the order of
// strength is that one. It reads settings and checks them; it opens nothing.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
)

// FileSizeMax bounds the configuration file, in bytes.
const FileSizeMax = 1 << 20

// DefaultFile is read when no file is named and it exists.
const DefaultFile = "gatehouse.yaml"

// EnvPrefix starts the name of every environment variable: data is
// GATEHOUSE_DATA, admission-listen is GATEHOUSE_ADMISSION_LISTEN.
const EnvPrefix = "GATEHOUSE_"

// Config is all settings. The yaml tag is the key in the file, the name of the
// flag and, in capitals with _ for -, of the environment variable.
type Config struct {
	// Directory for everything that is kept: meta.db, blobs, keys, advisories.
	Data string `yaml:"data"`
	// Address of the registry and the API. A port of 0 picks a free one.
	Listen string `yaml:"listen"`
	// Address of the Kubernetes admission webhook, always TLS. Empty turns it off.
	AdmissionListen string `yaml:"admission-listen"`
	// Certificate and key for listen, PEM files. Both or none.
	TLSCert string `yaml:"tls-cert"`
	TLSKey  string `yaml:"tls-key"`
	// Allow listen beyond loopback without TLS: passwords travel in the clear.
	Insecure bool `yaml:"insecure"`
	// Let everybody pull without a name.
	AnonymousPull bool `yaml:"anonymous-pull"`
	// Registry host names that mean this server, as image references write
	// them ("registry.example.com", "10.0.0.5:5000"). The listen address is
	// always one of them.
	Hostnames []string `yaml:"hostnames"`
	// Policy files and directories that are loaded at start, besides those
	// that were put by the API.
	Policy []string `yaml:"policy"`
	// What happens to an image that no image policy matches: deny, warn or allow.
	NoMatch string `yaml:"no-match"`
	// Names under which the admission webhook's certificate is valid, besides
	// localhost and the loopback addresses.
	AdmissionNames []string `yaml:"admission-names"`
	// Addresses (CIDR) in private ranges that the server may contact when an
	// image reference, a redirect or a feed names them.
	AllowPrivate []string `yaml:"allow-private"`
	// Age from which a blob or manifest that nothing refers to may be collected.
	GCGrace time.Duration `yaml:"gc-grace"`
	// How long after its collection the bytes of a blob stay in storage, for
	// pulls that have begun.
	GCTombstone time.Duration `yaml:"gc-tombstone"`
	// Collect manifests that no tag leads to. false keeps them for ever.
	GCUntagged bool `yaml:"gc-untagged"`
	// How long the manifest of a deleted or moved tag is kept, so that the tag
	// can be restored.
	TagRestore time.Duration `yaml:"tag-restore"`
	// File that gets the base URL once the server answers.
	ReadyFile string `yaml:"ready-file"`
	// debug, info, warn or error.
	LogLevel string `yaml:"log-level"`
}

// Default returns the documented defaults.
func Default() Config {
	return Config{
		Data: "./gatehouse-data", Listen: "127.0.0.1:5000", AdmissionListen: "127.0.0.1:8443",
		NoMatch: "deny", LogLevel: "info",
		GCGrace: 24 * time.Hour, GCTombstone: 10 * time.Minute, GCUntagged: true, TagRestore: 14 * 24 * time.Hour,
	}
}

// Load reads the defaults, then the file (path, or DefaultFile if path is empty
// and it exists), then the environment. Flags are applied by the caller.
// Errors: CodeInvalid for an unknown key or a wrong value.
func Load(path string, getenv func(string) string) (Config, error) {
	c := Default()
	named := path != ""
	if !named {
		path = DefaultFile
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
	case err != nil:
		return c, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the configuration: %w", err)
	default:
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, FileSizeMax+1))
		if err != nil {
			return c, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read %s: %w", path, err)
		}
		if len(b) > FileSizeMax {
			return c, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than %d bytes", path, FileSizeMax)
		}
		if err := c.parse(path, b); err != nil {
			return c, err
		}
	}
	return c, c.env(getenv)
}

func (c *Config) parse(path string, b []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the file must be a list of key: value", path, root.Line)
	}
	keys := Keys()
	for i := 0; i < len(root.Content); i += 2 {
		if key := root.Content[i]; !slices.Contains(keys, key.Value) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: unknown key %q", path, key.Line, key.Value).
				WithHint("did you mean %q?", Nearest(key.Value, keys))
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", path, err)
	}
	return nil
}

// Keys lists every key in the order of the struct.
func Keys() []string {
	t := reflect.TypeFor[Config]()
	out := make([]string, t.NumField())
	for i := range out {
		out[i] = t.Field(i).Tag.Get("yaml")
	}
	return out
}

// env applies GATEHOUSE_* variables; lists are divided by commas.
func (c *Config) env(getenv func(string) string) error {
	v := reflect.ValueOf(c).Elem()
	for i, key := range Keys() {
		name := EnvName(key)
		s := getenv(name)
		if s == "" {
			continue
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(s)
		case reflect.Bool:
			b, err := strconv.ParseBool(s)
			if err != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "%s=%q is neither true nor false", name, s)
			}
			f.SetBool(b)
		case reflect.Slice:
			f.Set(reflect.ValueOf(strings.Split(s, ",")))
		}
	}
	return nil
}

// Check finds settings that cannot work or are not safe. Errors: CodeInvalid.
func (c Config) Check() error {
	invalid := func(key, format string, args ...any) *gatehouse.Error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s", key, fmt.Sprintf(format, args...))
	}
	if c.Data == "" {
		return invalid("data", "no directory is named")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return invalid("tls-cert", "a certificate and its key go together").WithHint("set both tls-cert and tls-key")
	}
	if !slices.Contains([]string{"deny", "warn", "allow"}, c.NoMatch) {
		return invalid("no-match", "%q is none of deny, warn, allow", c.NoMatch)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return invalid("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	for key, addr := range map[string]string{"listen": c.Listen, "admission-listen": c.AdmissionListen} {
		if addr == "" && key == "admission-listen" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return invalid(key, "%q is not host:port", addr)
		}
	}
	if c.TLSCert == "" && !c.Insecure && !Loopback(c.Listen) {
		return invalid("listen", "%s is reachable from other machines and there is no TLS", c.Listen).
			WithHint("set --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure if something in front does TLS")
	}
	return nil
}

// Loopback reports whether addr (host:port) can be reached from this machine
// only. A name other than localhost is not asked: it counts as reachable.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Nearest returns the candidate with the smallest edit distance to s.
func Nearest(s string, candidates []string) string {
	best, bestAt := "", int(^uint(0)>>1)
	for _, c := range candidates {
		if d := distance(s, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// Print writes every setting with its environment variable, as a file that
// [Load] reads back.
func Print(w io.Writer, c Config) error {
	v := reflect.ValueOf(c)
	for i, key := range Keys() {
		b, err := yaml.Marshal(map[string]any{key: v.Field(i).Interface()})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "# --%s, %s\n%s", key, EnvName(key), b); err != nil {
			return err
		}
	}
	return nil
}

// EnvName is the environment variable of a key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(key))
}
