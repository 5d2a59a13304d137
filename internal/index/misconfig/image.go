package misconfig

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// stepsMax, stepMax and imageMax bound what is looked at of a
	// configuration: steps, bytes of one, findings of each check.
	stepsMax  = 2000
	stepMax   = 64 << 10
	perCheck  = 50
	shownMax  = 160
	labelBase = "org.opencontainers.image.base.name"
)

// Image looks at an image configuration. secrets are those that were found in
// it, masked.
func Image(cfg gatehouse.ImageConfig, secrets []gatehouse.Finding) []gatehouse.Finding {
	r := &result{counts: map[string]int{}}
	r.user(cfg)
	r.health(cfg)
	r.ports(cfg)
	r.command(cfg)
	r.environment(cfg)
	r.history(cfg)
	for _, s := range secrets {
		switch s.Location.Origin {
		case "env":
			r.add(secretInEnv, "env", s.Location.Name, s.Location.Excerpt)
		case "history":
			r.add(secretInStep, "history", s.Location.Name, s.Location.Excerpt)
		}
	}
	return r.findings
}

type result struct {
	findings []gatehouse.Finding
	counts   map[string]int
}

func (r *result) add(c Check, origin, name, excerpt string) {
	if r.counts[c.ID]++; r.counts[c.ID] > perCheck {
		return
	}
	if len(excerpt) > shownMax {
		excerpt = strings.ToValidUTF8(excerpt[:shownMax], "") + "…"
	}
	r.findings = append(r.findings, c.at(gatehouse.Location{Origin: origin, Name: name, Excerpt: excerpt}))
}

// user: image-spec config.md, "User": user, uid, user:group, …; empty is root.
func (r *result) user(cfg gatehouse.ImageConfig) {
	name, _, _ := strings.Cut(cfg.Config.User, ":")
	id, err := strconv.ParseUint(name, 10, 64)
	if name == "" || name == "root" || err == nil && id == 0 {
		r.add(runsAsRoot, "config", "User", cfg.Config.User)
	}
}

func (r *result) health(cfg gatehouse.ImageConfig) {
	h := cfg.Config.Healthcheck
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" || h.Test[0] == "" {
		r.add(noHealthcheck, "config", "Healthcheck", "")
	}
}

func (r *result) ports(cfg gatehouse.ImageConfig) {
	for _, key := range slices.Sorted(maps.Keys(cfg.Config.ExposedPorts)) {
		port, _, _ := strings.Cut(key, "/")
		switch port {
		case "22":
			r.add(exposesSSH, "config", "ExposedPorts", key)
		case "2375", "2376":
			r.add(exposesDocker, "config", "ExposedPorts", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(cfg.Config.Volumes)) {
		if path.Base(key) == "docker.sock" || path.Base(key) == "containerd.sock" {
			r.add(mountsDocker, "config", "Volumes", key)
		}
	}
}

func (r *result) command(cfg gatehouse.ImageConfig) {
	shell := func(args []string) bool {
		return len(args) >= 3 && args[1] == "-c" && slices.Contains([]string{"sh", "bash", "ash", "dash"}, path.Base(args[0])) &&
			!strings.HasPrefix(strings.TrimSpace(args[2]), "exec ")
	}
	switch {
	case shell(cfg.Config.Entrypoint):
		r.add(shellForm, "config", "Entrypoint", "")
	case len(cfg.Config.Entrypoint) == 0 && shell(cfg.Config.Cmd):
		r.add(shellForm, "config", "Cmd", "")
	}
}

// trustEnv are variables that turn verification off.
var trustEnv = map[string]string{
	"NODE_TLS_REJECT_UNAUTHORIZED": "0", "GIT_SSL_NO_VERIFY": "1 true", "PYTHONHTTPSVERIFY": "0", "NPM_CONFIG_STRICT_SSL": "false",
	"CURL_INSECURE": "1 true", "GONOSUMCHECK": "1 true", "GOINSECURE": "*", "SSL_NO_VERIFY": "1 true", "AWS_NO_VERIFY_SSL": "1 true",
}

func (r *result) environment(cfg gatehouse.ImageConfig) {
	for _, v := range cfg.Config.Env[:min(len(cfg.Config.Env), stepsMax)] {
		name, value, _ := strings.Cut(v, "=")
		if off, ok := trustEnv[strings.ToUpper(name)]; ok && value != "" && slices.Contains(strings.Fields(off), strings.ToLower(value)) {
			r.add(verifiesNot, "env", name, name+"="+value)
		}
	}
}

// history looks at the steps of the image's own Dockerfile: what is wrong with
// its base is said of the base. What was built from latest is told by the label
// that builders set and by Buildah's comment.
func (r *result) history(cfg gatehouse.ImageConfig) {
	if base, ok := cfg.Config.Labels[labelBase]; ok && floating(base) {
		r.add(baseLatest, "label", labelBase, base)
	}
	steps := cfg.History[:min(len(cfg.History), stepsMax)]
	own := ownSteps(cfg)
	for i, h := range steps {
		name := fmt.Sprintf("step %d", i+1)
		if from, ok := strings.CutPrefix(h.Comment, "FROM "); ok && i >= own && floating(from) {
			r.add(baseLatest, "history", name, "FROM "+from)
		}
		if i < own {
			continue
		}
		s := parseStep(h.CreatedBy[:min(len(h.CreatedBy), stepMax)])
		switch s.instruction {
		case "ADD":
			r.addStep(name, s)
		case "RUN":
			r.runStep(name, s)
		}
	}
}

// imageID is the short or whole id of an image on the machine that built it.
var imageID = regexp.MustCompile(`^[0-9a-f]{12}([0-9a-f]{52})?$`)

// floating reports whether a reference of a base image names no version.
func floating(reference string) bool {
	reference = strings.TrimSpace(reference)
	if reference == "" || reference == "scratch" || strings.Contains(reference, "@") || strings.ContainsAny(reference, " \t") {
		return false
	}
	if imageID.MatchString(reference) { // of a build: the step before, as buildah writes it
		return false
	}
	_, tag, ok := strings.Cut(path.Base(reference), ":")
	return !ok || tag == "latest"
}

// ownSteps returns the index of the first step after the base image, as far as
// the history tells: a base image ends with its CMD or ENTRYPOINT, and steps
// that make layers follow it. 0 if there is no such place.
func ownSteps(cfg gatehouse.ImageConfig) int {
	made := false // a step behind this one made a layer
	for i := len(cfg.History) - 1; i >= 0; i-- {
		h := cfg.History[i]
		if !h.EmptyLayer {
			made = true
			continue
		}
		if in := parseStep(h.CreatedBy[:min(len(h.CreatedBy), stepMax)]).instruction; made && (in == "CMD" || in == "ENTRYPOINT") {
			return i + 1
		}
	}
	return 0
}

// step is one step as the Dockerfile had it, as far as the history tells.
type step struct {
	instruction string // upper case; RUN for a bare command
	text        string // the rest
}

var (
	buildArgs = regexp.MustCompile(`^\|[0-9]+ .*?(/bin/(?:ba|a|da)?sh -[a-z]*c )`)
	shells    = regexp.MustCompile(`^(?:/usr)?/bin/(?:ba|a|da)?sh (?:-[a-z]+ (?:pipefail )?)+`)
)

// parseStep reads what Docker ("/bin/sh -c #(nop) CMD …"), BuildKit
// ("RUN /bin/sh -c … # buildkit") and Buildah write.
func parseStep(createdBy string) step {
	text := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(createdBy), "# buildkit"))
	if i := strings.Index(text, "#(nop)"); i >= 0 && i < 32 {
		text = strings.TrimSpace(text[i+len("#(nop)"):])
	}
	word, rest, _ := strings.Cut(text, " ")
	switch in := strings.ToUpper(word); in {
	case "ADD", "COPY", "RUN", "CMD", "ENTRYPOINT", "ENV", "ARG", "USER", "EXPOSE", "LABEL", "WORKDIR", "VOLUME", "HEALTHCHECK", "SHELL", "ONBUILD", "STOPSIGNAL", "MAINTAINER", "FROM":
		text = strings.TrimSpace(rest)
		if in != "RUN" {
			return step{in, text}
		}
	}
	if strings.HasPrefix(text, "|") {
		text = buildArgs.ReplaceAllString(text, "$1")
	}
	return step{"RUN", strings.TrimSpace(shells.ReplaceAllString(text, ""))}
}

var archives = []string{".tar", ".tgz", ".tar.gz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".gz", ".xz", ".bz2", ".zst"}

func (r *result) addStep(name string, s step) {
	var sources []string
	for _, w := range strings.Fields(s.text) {
		if strings.HasPrefix(w, "--checksum=") {
			return
		}
		if !strings.HasPrefix(w, "--") {
			sources = append(sources, strings.Trim(w, `[]",`))
		}
	}
	if len(sources) < 2 {
		return
	}
	for _, source := range sources[:len(sources)-1] {
		switch {
		case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"), strings.HasPrefix(source, "ftp://"),
			strings.HasPrefix(source, "git@"), strings.HasPrefix(source, "git://"):
			address, _, _ := strings.Cut(source, "?") // behind it are signatures and tokens
			r.add(addRemote, "history", name, "ADD "+withoutLogin(address))
		case strings.HasPrefix(source, "file:"), strings.HasPrefix(source, "multi:"), strings.HasPrefix(source, "dir:"), strings.HasPrefix(source, "("), source == "in":
			return // the older builder's own words: what was added is not told
		case !slices.ContainsFunc(archives, func(end string) bool { return strings.HasSuffix(source, end) }):
			r.add(addLocal, "history", name, "ADD "+source)
		}
	}
}

// withoutLogin removes user and password from an address.
func withoutLogin(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return address
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	return scheme + "://" + host + "/" + path
}

// command matches at the begin of a command in a shell line.
const command = `(?:^|[;&|(){}]\s*|\b(?:then|do|else)\s+)`

var (
	updates  = regexp.MustCompile(`\b(?:apt-get|apt|aptitude)\s+(?:-\S+\s+)*update\b|\bapk\s+(?:-\S+\s+)*update\b|\b(?:yum|dnf|microdnf)\s+(?:-\S+\s+)*(?:makecache|check-update)\b|\bzypper\s+(?:-\S+\s+)*ref(?:resh)?\b`)
	installs = regexp.MustCompile(`\b(?:install|upgrade|dist-upgrade|full-upgrade|build-dep|reinstall|groupinstall|swap|download)\b|\bapk\s+(?:-\S+\s+)*add\b|\bzypper\s+(?:-\S+\s+)*(?:in|up|dup)\b|\b(?:yum|dnf|microdnf)\s+(?:-\S+\s+)*update\b`)
	sudo     = regexp.MustCompile(command + `sudo\s`)
	chmod    = regexp.MustCompile(command + `(?:sudo\s+)?chmod\s+(?:-\S+\s+)*(?:[0-7]?[0-7]{2}[2367]|[ugo]*[ao][ugo]*[+=]r?wx?\S*)\s`)
	piped    = regexp.MustCompile(`\b(?:curl|wget)\s[^|;&]*\|\s*(?:sudo\s+(?:-\S+\s+)*)?(?:/(?:usr/)?bin/)?(?:ba|z|da|a|k)?sh\b`)
	trusting = regexp.MustCompile(`\bcurl\s(?:[^;&|]*\s)?(?:-[A-Za-z]*k[A-Za-z]*|--insecure)\b|--no-check-certificate\b|--allow-unauthenticated\b|--allow-insecure-repositories\b|--nogpgcheck\b|--no-gpg-checks\b|--allow-untrusted\b|\bpip[0-9.]*\s[^;&|]*--trusted-host\b|\bstrict-ssl\s*[= ]\s*false\b|\bhttp\.sslVerify[= ]+["']?false\b|\[\s*trusted=yes`)
	// stickyMode is a mode with the sticky bit, which makes it fit for all.
	stickyMode = regexp.MustCompile(`chmod\s+(?:-\S+\s+)*(?:[1357]777|\+t|a\+rwxt|[augo]*[+=]rwxt)\s`)
)

func (r *result) runStep(name string, s step) {
	// Flags of RUN itself come before the command.
	if strings.HasPrefix(s.text, "--security=insecure") || strings.Contains(s.text[:min(len(s.text), 512)], " --security=insecure ") {
		r.add(runsPrivileged, "history", name, "")
	}
	if updates.MatchString(s.text) && !installs.MatchString(s.text) {
		r.add(updateAlone, "history", name, shown(s.text, updates))
	}
	for _, test := range []struct {
		c  Check
		re *regexp.Regexp
	}{{usesSudo, sudo}, {pipesToShell, piped}, {verifiesNot, trusting}} {
		if test.re.MatchString(s.text) {
			r.add(test.c, "history", name, "")
		}
	}
	if m := chmod.FindString(s.text + " "); m != "" && !stickyMode.MatchString(m) {
		r.add(chmodAll, "history", name, strings.TrimLeft(strings.TrimSpace(m), ";&|(){} "))
	}
}

// shown is what re matches: the rest of the step may hold secrets.
func shown(text string, re *regexp.Regexp) string { return re.FindString(text) }
