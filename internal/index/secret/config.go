package secret

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// textsMax and textMax bound what is looked at of a configuration: texts,
	// and bytes of one. configMax bounds the findings.
	textsMax  = 5000
	textMax   = 256 << 10
	configMax = 200
)

// variable is the rule of what only its name tells.
var variable = rule{id: "variable-by-name", title: "password, key or token by the name of its variable", severity: gatehouse.SeverityHigh}

// Config looks at the environment, the labels, the command line and the history
// of an image. Unlike in files, values that documentation uses as examples are
// told: what stands in a configuration is in use. A secret that a variable holds
// is not told again for the step that set it.
func Config(cfg gatehouse.ImageConfig) []gatehouse.Finding {
	c := configScan{rules: rules(), told: map[string]bool{}}
	for _, v := range cfg.Config.Env {
		name, _, _ := strings.Cut(v, "=")
		c.text("env", name, v)
		c.assignments("env", name, []string{v})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Config.Labels)) {
		c.text("label", name, name+"="+cfg.Config.Labels[name])
	}
	c.text("config", "Entrypoint", strings.Join(cfg.Config.Entrypoint, " "))
	c.text("config", "Cmd", strings.Join(cfg.Config.Cmd, " "))
	for _, step := range cfg.Config.OnBuild {
		c.text("config", "OnBuild", step)
	}
	for i, h := range cfg.History {
		name := fmt.Sprintf("step %d", i+1)
		c.text("history", name, h.CreatedBy)
		c.assignments("history", name, strings.Fields(h.CreatedBy))
	}
	return c.findings
}

type configScan struct {
	rules    *ruleSet
	findings []gatehouse.Finding
	told     map[string]bool // secrets, which stay here
	texts    int
}

// text asks every rule about one text.
func (c *configScan) text(origin, name, text string) {
	if c.texts++; c.texts > textsMax {
		return
	}
	b := []byte(text[:min(len(text), textMax)])
	var found []match
	worked := 0
	for _, h := range c.rules.filter.scan(b, 0, len(b), nil) {
		for _, at := range c.rules.byWord[h.word] {
			r := &c.rules.list[at]
			if !r.config || r.where != nil || worked > textMax {
				continue
			}
			m, cost, ok := r.match(b, h.at, len(c.rules.filter.words[h.word].text))
			worked += cost
			if ok && !isPlaceholder(b[m.body:m.end], "") {
				m.order = at
				found = append(found, m)
			}
		}
	}
	for _, m := range dropOverlaps(found) {
		f := c.rules.list[m.order].finding()
		f.Location = &gatehouse.Location{Origin: origin, Name: name, Excerpt: excerpt(b, m)}
		c.add(string(b[m.start:m.end]), f)
	}
}

// assignments looks at NAME=VALUE for names of secrets.
func (c *configScan) assignments(origin, name string, words []string) {
	for _, w := range words[:min(len(words), textsMax)] {
		key, value, ok := strings.Cut(strings.Trim(w, `"'`), "=")
		value = strings.Trim(value, `"'`)
		if !ok || !SecretName(key) || !meansSecret(value) {
			continue
		}
		f := variable.finding()
		f.Location = &gatehouse.Location{Origin: origin, Name: name, Excerpt: key + "=" + mask}
		c.add(value, f)
	}
}

// add keeps the first finding of a secret.
func (c *configScan) add(secret string, f gatehouse.Finding) {
	if c.told[secret] || len(c.findings) >= configMax {
		return
	}
	c.told[secret] = true
	c.findings = append(c.findings, f)
}

// SecretName reports whether the name of a variable says that its value is
// secret: whole words of it, and not that it is where the secret is kept.
func SecretName(name string) bool {
	const nameMax = 128
	if len(name) == 0 || len(name) > nameMax {
		return false
	}
	parts := nameParts(name)
	if len(parts) == 0 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !wordByte[c] && c != '-' && c != '.' {
			return false
		}
	}
	switch parts[len(parts)-1] {
	case "FILE", "PATH", "DIR", "URL", "URI", "NAME", "ID", "TTL", "TYPE", "LENGTH", "SIZE", "EXPIRY", "EXPIRES", "HEADER", "ALGORITHM", "ENABLED",
		"DISABLED", "REQUIRED", "PREFIX", "VERSION", "HOST", "PORT", "ENDPOINT", "REF", "HASH", "POLICY", "ISSUER", "ENCRYPTION", "FORMAT", "MODE", "COUNT", "TIMEOUT", "LIFETIME", "CLASS", "STORE", "SCOPE", "SERVICE", "PROVIDER", "FIELD", "KIND", "METHOD", "AUDIENCE", "SHA256", "MAX", "MIN":
		return false
	}
	for i, p := range parts {
		switch p {
		case "PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "SECRET", "SECRETS", "TOKEN", "APIKEY", "SECRETKEY", "ACCESSKEY", "PRIVATEKEY", "CREDENTIALS",
			"ROOTPW", "PGPASSWORD", "MYSQLPASSWORD":
			return true
		case "KEY":
			if i > 0 && slices.Contains([]string{"API", "ACCESS", "SECRET", "PRIVATE", "AUTH", "ENCRYPTION", "SIGNING", "MASTER", "STORAGE", "ACCOUNT", "APP", "LICENSE"}, parts[i-1]) {
				return true
			}
		case "PWD":
			if i > 0 {
				return true
			}
		}
	}
	return false
}

// nameParts splits DB_PASSWORD, db-password, db.password and dbPassword, in upper
// case.
func nameParts(name string) []string {
	var b strings.Builder
	for i := range len(name) {
		if i > 0 && 'A' <= name[i] && name[i] <= 'Z' && 'a' <= name[i-1] && name[i-1] <= 'z' {
			b.WriteByte('_')
		}
		b.WriteByte(name[i])
	}
	return strings.FieldsFunc(strings.ToUpper(b.String()), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
}

// meansSecret reports whether a value may be a secret: it is no switch, no
// number of one digit, no path and no reference.
func meansSecret(value string) bool {
	const least = 3
	if len(value) < least || isReference([]byte(value)) || strings.HasPrefix(value, "/") {
		return false
	}
	switch strings.ToLower(value) {
	case "true", "false", "yes", "none", "null", "off", "nil", "required", "optional", "enabled", "disabled", "default":
		return false
	}
	return true
}
