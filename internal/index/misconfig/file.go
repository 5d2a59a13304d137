package misconfig

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// File is what is known of a file without its content.
type File struct {
	Path         string // cleaned, relative to the root
	Mode         fs.FileMode
	Size         int64 // bytes, -1 for a hard link
	Link         bool  // a hard link
	Capabilities bool
}

// Entry looks at one entry of a layer.
func Entry(f File) []gatehouse.Finding {
	var out []gatehouse.Finding
	add := func(c Check, excerpt string) { out = append(out, c.file(excerpt)) }
	perm := f.Mode.Perm()
	switch {
	case f.Mode.IsDir():
		if perm&0o002 != 0 && f.Mode&fs.ModeSticky == 0 && !strings.HasPrefix(f.Path, "dev/") {
			add(writableDir, f.Mode.String())
		}
		return out
	case f.Mode&fs.ModeSymlink != 0:
		if isSocket(f.Path) {
			add(dockerSocket, "")
		}
		return out
	case f.Mode&fs.ModeDevice != 0:
		if !strings.HasPrefix(f.Path, "dev/") {
			add(deviceNode, f.Mode.String())
		}
		return out
	}
	if f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && perm&0o111 != 0 {
		add(setuidFile.rated(setuidSeverity(f)), f.Mode.String())
	}
	if perm&0o002 != 0 && !f.Link && f.Mode.IsRegular() && !strings.HasPrefix(f.Path, "dev/") {
		add(writableFile, f.Mode.String())
	}
	if f.Capabilities {
		c := capableFile
		if slices.Contains(knownSetuid, path.Base(f.Path)) && inSystem(f.Path) {
			c = c.rated(low)
		}
		add(c, "")
	}
	if c, ok := named(f); ok {
		add(c, "")
	}
	return out
}

// knownSetuid are programs that distributions install with such rights, and
// that were looked at for decades.
var knownSetuid = []string{
	"su", "mount", "umount", "passwd", "chsh", "chfn", "newgrp", "sg", "gpasswd", "chage", "expiry", "ping", "ping4", "ping6", "sudo", "sudoedit",
	"pkexec", "unix_chkpwd", "unix2_chkpwd", "ssh-keysign", "ssh-agent", "dbus-daemon-launch-helper", "fusermount", "fusermount3", "newuidmap",
	"newgidmap", "wall", "write", "bsd-write", "write.ul", "crontab", "at", "dotlockfile", "mlocate", "plocate", "utempter", "pam_timestamp_check",
	"polkit-agent-helper-1", "pam_extrausers_chkpwd", "grub2-set-bootflag", "userhelper", "usernetctl", "bbsuid", "doas", "arping", "clockdiff",
	"traceroute6.iputils", "mount.nfs", "postdrop", "postqueue", "exim4", "staprun", "vlock-main", "mail-lock", "mail-unlock", "mail-touchlock",
}

func inSystem(name string) bool {
	for _, dir := range []string{"bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/lib/", "usr/lib64/", "usr/libexec/", "lib/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	return false
}

func setuidSeverity(f File) gatehouse.Severity {
	switch {
	case inSystem(f.Path) && slices.Contains(knownSetuid, path.Base(f.Path)):
		return low
	case f.Mode&fs.ModeSetuid != 0:
		return high
	}
	return medium
}

func isSocket(name string) bool {
	return strings.HasSuffix(name, "run/docker.sock") || strings.HasSuffix(name, "run/containerd/containerd.sock")
}

// Package managers bring such files inside packages, where they are nobody's
// logins.
func inPackage(name string) bool {
	return strings.Contains("/"+name, "/node_modules/") || strings.Contains(name, "-packages/") || strings.Contains("/"+name, "/gems/")
}

var (
	sshDaemons = []string{"usr/sbin/sshd", "sbin/sshd", "usr/bin/sshd", "usr/local/sbin/sshd", "usr/sbin/dropbear", "usr/bin/dropbear", "usr/sbin/in.telnetd", "usr/sbin/telnetd"}
	histories  = []string{".bash_history", ".ash_history", ".zsh_history", ".sh_history", ".psql_history", ".mysql_history", ".python_history", ".node_repl_history", ".rediscli_history"}
	logins     = []string{
		".aws/credentials", ".azure/accessTokens.json", ".azure/msal_token_cache.json", ".config/gcloud/credentials.db", ".config/gcloud/application_default_credentials.json",
		".config/gh/hosts.yml", ".docker/config.json", ".dockercfg", ".netrc", ".pypirc", ".git-credentials", ".pgpass", ".my.cnf", ".s3cfg", ".boto", ".vault-token",
		".ssh/id_rsa", ".ssh/id_dsa", ".ssh/id_ecdsa", ".ssh/id_ed25519", ".terraform.d/credentials.tfrc.json", ".gem/credentials", ".cargo/credentials",
		".cargo/credentials.toml", ".m2/settings-security.xml", ".nuget/NuGet/NuGet.Config", ".composer/auth.json", ".config/composer/auth.json", ".oci/config",
	}
	clusters = []string{".kube/config", "etc/kubernetes/admin.conf", "etc/kubernetes/super-admin.conf", "etc/kubernetes/kubelet.conf", "etc/rancher/k3s/k3s.yaml"}
)

// named looks at the name of a regular file.
func named(f File) (Check, bool) {
	under := func(list []string) bool {
		return slices.ContainsFunc(list, func(end string) bool { return f.Path == end || strings.HasSuffix(f.Path, "/"+end) })
	}
	switch base := path.Base(f.Path); {
	case slices.Contains(sshDaemons, f.Path):
		return sshDaemon, true
	case isSocket(f.Path):
		return dockerSocket, true
	case f.Size <= 0 || inPackage(f.Path):
		return Check{}, false
	case base == "HEAD":
		return gitDirectory, path.Base(path.Dir(f.Path)) == ".git"
	case base == ".env" || base == ".env.production" || base == ".env.local" || base == ".env.prod":
		return envFile, true
	case base[0] == '.' && slices.Contains(histories, base):
		return shellHistory, true
	case under(clusters):
		return kubeconfig, true
	case under(logins):
		return credentialFile, true
	}
	return Check{}, false
}

// caches are directories that package managers fill, by the name under which
// they are told once.
var caches = []struct{ dir, name string }{
	{"var/lib/apt/lists/", "apt"}, {"var/cache/apt/", "apt"}, {"var/cache/apk/", "apk"}, {"etc/apk/cache/", "apk"}, {"var/cache/dnf/", "dnf"},
	{"var/cache/yum/", "yum"}, {"var/cache/zypp/", "zypper"}, {"root/.cache/pip/", "pip"}, {"root/.npm/_cacache/", "npm"}, {"root/.cache/yarn/", "yarn"},
	{"usr/local/share/.cache/yarn/", "yarn"}, {"root/.m2/repository/", "maven"}, {"root/.gradle/caches/", "gradle"}, {"root/.cache/go-build/", "go"},
	{"root/.composer/cache/", "composer"}, {"root/.cargo/registry/", "cargo"}, {"root/.nuget/packages/", "nuget"}, {"var/cache/pacman/pkg/", "pacman"},
}

// Cache tells whose cache a file belongs to, "" if none. One finding per cache
// is enough: CacheFinding.
func Cache(f File) string {
	if f.Size <= 0 || !f.Mode.IsRegular() || len(f.Path) < 8 {
		return ""
	}
	switch f.Path[0] {
	case 'v', 'r', 'e', 'u':
	default:
		return ""
	}
	for _, c := range caches {
		if strings.HasPrefix(f.Path, c.dir) && path.Base(f.Path) != "lock" {
			return c.name
		}
	}
	return ""
}

// CacheFinding is the finding of a cache, at the first file of it.
func CacheFinding(name string) gatehouse.Finding { return packageCache.file("cache of " + name) }
