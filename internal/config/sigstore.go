package config

import (
	"net/url"
	"strings"
)

// sigstorePassphraseMin is the shortest passphrase of the private Sigstore, in
// bytes.
const sigstorePassphraseMin = 16

// logBudgetMin is the least that may be added to the log per day, in bytes: some of
// the largest entries.
const logBudgetMin = 1 << 20

// checkSigstore checks the private Sigstore; what its issuers mean is checked
// where they are made. No error shows the passphrase.
func (c Config) checkSigstore() error {
	if c.ExternalURL != "" {
		u, err := url.Parse(c.ExternalURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return invalid("external-url", "the value is not https://HOST or https://HOST:PORT")
		}
	}
	if c.SigstorePassphrase != "" && c.SigstorePassphraseFile != "" {
		return invalid("sigstore-passphrase", "sigstore-passphrase and sigstore-passphrase-file are both set").WithHint("set one of them")
	}
	if c.SigstoreSealKey != "" && (c.SigstorePassphrase != "" || c.SigstorePassphraseFile != "") {
		return invalid("sigstore-seal-key", "a key and a passphrase are both set").WithHint("set one of them")
	}
	if c.SigstorePassphrase != "" && len(c.SigstorePassphrase) < sigstorePassphraseMin {
		return invalid("sigstore-passphrase", "it has less than %d characters", sigstorePassphraseMin).WithHint("make one with: openssl rand -hex 32")
	}
	for key, n := range map[string]int64{"sigstore-log-budget": c.SigstoreLogBudget, "sigstore-log-address-budget": c.SigstoreLogAddressBudget} {
		if n != 0 && n < logBudgetMin {
			return invalid(key, "%d bytes are less than %d", n, logBudgetMin).WithHint("0 is no limit")
		}
	}
	if !c.Sigstore || c.Database == "" && c.DatabaseFile == "" {
		return nil
	}
	if c.SigstorePassphrase == "" && c.SigstorePassphraseFile == "" && c.SigstoreSealKey == "" {
		return invalid("sigstore", "its keys lie in PostgreSQL, and nothing seals them").WithHint("set sigstore-passphrase-file or sigstore-seal-key, the same one for all replicas")
	}
	if c.ExternalURL == "" {
		return invalid("sigstore", "replicas must tell clients one URL").WithHint("set external-url, the same one for all replicas")
	}
	return nil
}

// SigstoreSecret is the passphrase of the private Sigstore, from
// sigstore-passphrase or its file; empty: none is set. It must not be logged.
func (c Config) SigstoreSecret() (string, error) {
	if c.SigstorePassphraseFile == "" {
		return c.SigstorePassphrase, nil
	}
	return secretFile("sigstore-passphrase-file", c.SigstorePassphraseFile)
}
