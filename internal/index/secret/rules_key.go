package secret

import (
	"bytes"
	"path"
	"slices"
	"strings"
)

// keyRules are private keys and signed tokens.
func keyRules() []rule {
	body := `(?:[A-Za-z0-9+/=\s]|\\[nr]){64,}`
	header := `(?:[A-Za-z-]+: [^\n]{0,200}(?:\s|\\[nr])+){0,5}`
	return []rule{
		{
			id: "private-key", title: "private key", severity: critical, words: []string{"-----BEGIN "}, config: true,
			pattern: compiled(`^(-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])*` + header + body + `)`),
			ahead:   Ahead, lines: true, entropy: 3.5, quick: isPrivateKey, shown: headerLine,
		},
		{
			id: "private-key-base64", title: "private key in base64", severity: critical, words: []string{"LS0tLS1CRUdJTi"}, config: true,
			pattern: compiled(`^(LS0tLS1CRUdJTi(?:BSU0EgUFJJVkFURSBL|BQUklWQVRFIEtFW|BFQyBQUklWQVRFIEtFW|BPUEVOU1NIIFBSSVZBVEUgS0VZ|BEU0EgUFJJVkFURSBL|BFTkNSWVBURUQgUFJJVkFURSBL|BQR1AgUFJJVkFURSBLRV)[A-Za-z0-9+/=]{60,})`),
			ahead:   Ahead, entropy: 3.5,
		},
		{
			id: "putty-private-key", title: "PuTTY private key", severity: critical, words: []string{"PuTTY-User-Key-File-"}, config: true,
			pattern: compiled(`^(PuTTY-User-Key-File-[23]: [^\n]+\n(?:[^\n]*\n){1,60}?Private-Lines: [0-9]+\s+[A-Za-z0-9+/=]{20,})`),
			ahead:   Ahead, lines: true, entropy: 3,
		},
		token("age-secret-key", "age secret key", critical, alnumUp, 58, 58, "AGE-SECRET-KEY-1"),
		token("age-plugin-secret-key", "age secret key", critical, alnumUp, 40, 300, "AGE-SECRET-KEY-PQ-1"),
		beside("wireguard-private-key", "WireGuard private key", critical, `[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=`, "privatekey", "presharedkey").in(isSettings),
		{
			id: "json-web-token", title: "JSON Web Token", severity: medium, words: []string{"eyJhbGciOi", "eyJ0eXAiOi", "eyJraWQiOi", "eyJlbmMiOi", "eyJqa3UiOi", "eyJ4NXQiOi"}, config: true, binary: true,
			pattern: compiled(`^(eyJ[A-Za-z0-9_-]{14,}\.eyJ[A-Za-z0-9_-]{14,}\.[A-Za-z0-9_-]{20,})(?:[^0-9A-Za-z_-]|$)`), ahead: 3 << 10, entropy: 4,
		},
		{
			id: "json-web-key", title: "private JSON Web Key", severity: critical, words: []string{`"kty"`}, config: true,
			pattern: compiled(`^"kty"\s*:\s*"(?:RSA|EC|OKP|oct)"[^}]{0,1000}"(?:d|k)"\s*:\s*"([A-Za-z0-9_-]{22,700})"`), ahead: 3 << 10, lines: true, entropy: 3.5,
		},
	}
}

// isPrivateKey looks at "-----BEGIN …" without an expression: certificates are
// many.
func isPrivateKey(b []byte) bool {
	line := b[:min(len(b), 64)]
	return bytes.Contains(line, []byte("PRIVATE KEY"))
}

// headerLine returns the length of "-----BEGIN … PRIVATE KEY-----".
func headerLine(secret []byte) int {
	const dashes = "-----"
	if i := bytes.Index(secret[len(dashes):], []byte(dashes)); i >= 0 {
		return 2*len(dashes) + i
	}
	return 0
}

// urlRules are passwords in addresses.
func urlRules() []rule {
	url := func(id, title string, schemes string) rule {
		return rule{
			id: id, title: title, severity: high, words: []string{"://"}, before: letters.text + digits, back: 24, ahead: 400,
			pattern: compiled(`(?i)(?:^|[^a-z0-9])(?:` + schemes + `)(?:\+[a-z0-9]+)?://[^\s:/?#@"'\x60<>\\]{0,128}:([^\s/@"'\x60<>\\]{3,200})@[a-z0-9\[_$]`),
			quick:   hasLogin, entropy: 1, binary: true, config: true, host: true,
		}
	}
	return []rule{
		url("database-url", "password in the address of a database or message broker",
			`postgres(?:ql)?|pgsql|mysqlx?|mysql2|mariadb|mongodb|rediss?|valkeys?|amqps?|mssql|sqlserver|oracle|clickhouse|cockroachdb|couchdb|couchbases?|cassandra|neo4j|bolt|nats|influxdb|hive|db2|snowflake|ldaps?|memcached|kafka|mqtts?|elasticsearch`),
		url("url-password", "password in an address", `https?|ftps?|sftp|ssh|git|smtps?|imaps?|pop3s?|socks5h?|wss?|tcp|smb|svn|dav|davs|rtsp|proxy`),
	}
}

// hasLogin reports whether what follows "://" has a user and a password.
func hasLogin(b []byte) bool {
	b = b[min(len(b), 3):]
	colon := false
	for _, c := range b {
		switch {
		case c == '@':
			return colon
		case c == ':':
			colon = true
		case c <= ' ' || c == '/' || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`' || c == '?' && !colon || c == '\\' || c >= 0x7f:
			return false
		}
	}
	return false
}

// assignRules are what looks random and is called a password, in files that
// hold settings. Source code is full of such names with harmless values.
func assignRules() []rule {
	return []rule{
		beside("password-assignment", "password in a settings file", medium, `[^\s"'\x60;,<>&\\]{8,200}`,
			"password", "passwd", "passphrase", "_pwd").in(isSettings).checked(looksRandom).withEntropy(2.5).onlyFiles(),
		beside("secret-assignment", "secret or token in a settings file", medium, `[A-Za-z0-9+/=_.~!@#$%^*-]{12,512}`,
			"secret", "token", "api_key", "apikey", "api-key", "access_key", "accesskey", "auth_key", "private_key", "signing_key", "encryption_key", "credential").
			in(isSettings).checked(looksRandom).window(0, 640).onlyFiles(),
	}
}

func (r rule) onlyFiles() rule { r.config, r.named = false, true; return r }

// looksRandom asks for letters and digits or signs: words and numbers alone are
// seldom secrets, and names of files and hosts never.
func looksRandom(secret []byte) bool {
	var letter, digit, sign bool
	for _, c := range secret {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			letter = true
		case '0' <= c && c <= '9':
			digit = true
		case c != '.' && c != '_' && c != '-' && c != '/':
			sign = true
		}
	}
	if bytes.HasPrefix(secret, []byte("/")) || bytes.HasPrefix(secret, []byte("./")) || bytes.Contains(secret, []byte("://")) || bytes.ContainsAny(secret, "(){}") {
		return false
	}
	return letter && (digit || sign)
}

// sources are endings of source code.
var sources = []string{".py", ".pyc", ".go", ".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".java", ".class", ".rb", ".php", ".c", ".h", ".cc", ".cpp", ".cs", ".rs", ".pl", ".pm"}

// The where functions are asked at each word of their rules: names only.

// isSettings reports whether a file holds settings of an application or a
// service, and is none that a package manager brought.
func isSettings(name string) bool {
	for _, dir := range packageDirs {
		if strings.Contains("/"+name, dir) {
			return false
		}
	}
	base := strings.ToLower(path.Base(name))
	if slices.Contains(sources, path.Ext(base)) {
		return base == "config.php" || base == "wp-config.php"
	}
	if strings.HasPrefix(base, ".env") || strings.HasSuffix(base, ".env") || strings.HasPrefix(base, "appsettings") || strings.HasPrefix(base, "secrets.") ||
		strings.HasPrefix(base, "credentials") {
		return true
	}
	switch base {
	case "config.json", "settings.json", "local.settings.json", "web.config", "settings.xml", ".my.cnf", ".s3cfg",
		".boto", "rclone.conf", "database.yml", "terraform.tfstate", "environment", ".htpasswd", ".bash_history", ".zsh_history", ".sh_history":
		return true
	}
	return slices.Contains([]string{".ini", ".cfg", ".conf", ".cnf", ".properties", ".toml", ".yaml", ".yml", ".tfvars", ".tfstate"}, path.Ext(base))
}

func isDockerConfig(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix("/"+name, "/.docker/config.json") || base == ".dockercfg" || base == ".dockerconfigjson" || base == "auth.json" || base == "config.json"
}

func isNetrc(name string) bool {
	base := path.Base(name)
	return base == ".netrc" || base == "_netrc" || base == "auth.conf" || strings.Contains(name, "apt/auth.conf.d/")
}

func isPgpass(name string) bool { return path.Base(name) == ".pgpass" }

func isPasswords(name string) bool {
	switch name {
	case "etc/shadow", "etc/shadow-", "etc/passwd", "etc/passwd-", "etc/gshadow", "etc/gshadow-":
		return true
	}
	return path.Base(name) == ".htpasswd"
}

func isDjango(name string) bool {
	return path.Ext(name) == ".py" && isOwn(name)
}

func isKubernetes(name string) bool {
	return strings.HasPrefix(name, "etc/kubernetes/") || strings.Contains(path.Base(name), "kubeconfig") || strings.Contains(path.Base(name), "kubeadm")
}

// isOwn reports whether no package manager brought the file.
func isOwn(name string) bool {
	for _, dir := range packageDirs {
		if strings.Contains("/"+name, dir) {
			return false
		}
	}
	return true
}
