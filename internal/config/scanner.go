package config

import (
	"net/url"
	"strings"
)

// adapterTokenMin is the shortest token of the scanner API, in bytes.
const adapterTokenMin = 16

// checkAdapter checks the scanner for others. No error shows the token.
func (c Config) checkAdapter() error {
	if c.ScannerAdapterToken != "" && c.ScannerAdapterTokenFile != "" {
		return invalid("scanner-adapter-token", "scanner-adapter-token and scanner-adapter-token-file are both set").WithHint("set one of them")
	}
	for _, r := range c.ScannerAdapterRegistries {
		host := strings.TrimPrefix(strings.TrimPrefix(r, "http://"), "https://")
		if u, err := url.Parse("https://" + host); err != nil || host == "" || u.Host != host || strings.ContainsAny(host, " *") {
			return invalid("scanner-adapter-registries", "%q is not a registry", r).WithHint("write HOST or HOST:PORT, with http:// before it where there is no TLS")
		}
	}
	if !c.ScannerAdapter {
		return nil
	}
	if c.ScannerAdapterToken == "" && c.ScannerAdapterTokenFile == "" {
		return invalid("scanner-adapter", "its callers need a token").WithHint("set scanner-adapter-token-file")
	}
	if len(c.ScannerAdapterRegistries) == 0 {
		return invalid("scanner-adapter", "no registry may be read").WithHint("name yours in scanner-adapter-registries")
	}
	if c.ScannerAdapterTokenFile != "" {
		return nil
	}
	return checkAdapterToken(c.ScannerAdapterToken)
}

func checkAdapterToken(token string) error {
	if len(token) < adapterTokenMin {
		return invalid("scanner-adapter-token", "it has less than %d characters", adapterTokenMin).WithHint("make one with: openssl rand -hex 32")
	}
	return nil
}

// checkOpinion checks the other scanner; what its source means is checked where
// it is made.
func (c Config) checkOpinion() error {
	if c.SecondOpinionToken != "" && c.SecondOpinionTokenFile != "" {
		return invalid("second-opinion-token", "second-opinion-token and second-opinion-token-file are both set").WithHint("set one of them")
	}
	if kind, _, _ := strings.Cut(c.SecondOpinion, "+http"); c.SecondOpinion != "" && (kind == c.SecondOpinion || kind != "harbor" && kind != "clair") {
		return invalid("second-opinion", "the value is neither harbor+https://HOST/PATH nor clair+https://HOST/PATH")
	}
	if c.SecondOpinionRegistry == "" {
		return nil
	}
	u, err := url.Parse(c.SecondOpinionRegistry)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return invalid("second-opinion-registry", "the value is not https://HOST or https://HOST:PORT")
	}
	return nil
}

// AdapterToken is what callers of the scanner API must know, from
// scanner-adapter-token or its file. It must not be logged.
func (c Config) AdapterToken() (string, error) {
	if c.ScannerAdapterTokenFile == "" {
		return c.ScannerAdapterToken, nil
	}
	token, err := secretFile("scanner-adapter-token-file", c.ScannerAdapterTokenFile)
	if err != nil {
		return "", err
	}
	return token, checkAdapterToken(token)
}

// OpinionToken is what the other scanner wants to know, from
// second-opinion-token or its file. It must not be logged.
func (c Config) OpinionToken() (string, error) {
	if c.SecondOpinionTokenFile == "" {
		return c.SecondOpinionToken, nil
	}
	return secretFile("second-opinion-token-file", c.SecondOpinionTokenFile)
}

// AdapterRegistries are scanner-adapter-registries as URLs without a path.
func (c Config) AdapterRegistries() []string {
	var out []string
	for _, r := range c.ScannerAdapterRegistries {
		if !strings.Contains(r, "://") {
			r = "https://" + r
		}
		out = append(out, strings.ToLower(r))
	}
	return out
}
