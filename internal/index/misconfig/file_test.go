package misconfig_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/misconfig"
)

func TestEntry(t *testing.T) {
	const setuid, setgid, sticky = fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky
	tests := []struct {
		path     string
		mode     fs.FileMode
		want     string
		severity gatehouse.Severity
	}{
		{"usr/bin/su", setuid | 0o755, "GHM101", gatehouse.SeverityLow},
		{"app/su", setuid | 0o755, "GHM101", gatehouse.SeverityHigh},
		{"usr/bin/tool", setuid | 0o755, "GHM101", gatehouse.SeverityHigh},
		{"usr/bin/tool", setgid | 0o755, "GHM101", gatehouse.SeverityMedium},
		{"usr/bin/data", setuid | 0o644, "", 0},
		{"srv", fs.ModeDir | setgid | 0o755, "", 0},
		{"etc/app.conf", 0o666, "GHM102", gatehouse.SeverityMedium},
		{"etc/app.conf", 0o664, "", 0},
		{"dev/null", 0o666, "", 0},
		{"etc/link", fs.ModeSymlink | 0o777, "", 0},
		{"srv", fs.ModeDir | 0o777, "GHM103", gatehouse.SeverityMedium},
		{"tmp", fs.ModeDir | sticky | 0o777, "", 0},
		{"tmp", fs.ModeDir | 0o777, "GHM103", gatehouse.SeverityMedium},
		{"usr/sbin/sshd", 0o755, "GHM107", gatehouse.SeverityMedium},
		{"var/run/docker.sock", fs.ModeSymlink | 0o777, "GHM108", gatehouse.SeverityHigh},
		{"app/.git/HEAD", 0o644, "GHM109", gatehouse.SeverityMedium},
		{".git/HEAD", 0o644, "GHM109", gatehouse.SeverityMedium},
		{"app/HEAD", 0o644, "", 0},
		{"root/.kube/config", 0o600, "GHM110", gatehouse.SeverityHigh},
		{"home/me/.aws/credentials", 0o600, "GHM111", gatehouse.SeverityMedium},
		{"root/.ssh/id_ed25519", 0o600, "GHM111", gatehouse.SeverityMedium},
		{"root/.ssh/id_ed25519.pub", 0o600, "", 0},
		{"app/node_modules/x/.env", 0o644, "", 0},
		{"app/.env", 0o644, "GHM114", gatehouse.SeverityLow},
		{"root/.bash_history", 0o600, "GHM113", gatehouse.SeverityLow},
		{"app/disk", fs.ModeDevice | 0o600, "GHM115", gatehouse.SeverityMedium},
		{"dev/sda", fs.ModeDevice | 0o600, "", 0},
	}
	for _, test := range tests {
		found := misconfig.Entry(misconfig.File{Path: test.path, Mode: test.mode, Size: 10})
		if ids(found) != test.want || len(found) == 1 && found[0].Severity != test.severity {
			t.Errorf("%s %v: %+v, want %s", test.path, test.mode, found, test.want)
		}
	}
	capable := misconfig.File{Path: "app/x", Mode: 0o755, Size: 10, Capabilities: true}
	if got := ids(misconfig.Entry(capable)); got != "GHM116" {
		t.Errorf("capabilities: %s", got)
	}
	if got := ids(misconfig.Entry(misconfig.File{Path: "root/.kube/config", Mode: 0o600})); got != "" {
		t.Errorf("an empty file: %s", got)
	}
}

func TestCache(t *testing.T) {
	for path, want := range map[string]string{
		"var/lib/apt/lists/deb_InRelease": "apt", "var/lib/apt/lists/lock": "", "var/cache/apk/APKINDEX": "apk", "root/.cache/pip/http/x": "pip",
		"var/cache/app/x": "", "app": "",
	} {
		if got := misconfig.Cache(misconfig.File{Path: path, Mode: 0o644, Size: 1}); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestContent(t *testing.T) {
	tests := []struct{ name, path, content, want string }{
		{"usual accounts", "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/sbin/nologin\n", ""},
		{"second root", "etc/passwd", "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n", "GHM104"},
		{"second root with zeros", "etc/passwd", "toor:x:000:0::/root:/bin/sh\n", "GHM104"},
		{"no password in passwd", "etc/passwd", "root::0:0::/root:/bin/sh\n", "GHM105"},
		{"hash in passwd", "etc/passwd", "root:$6$salt$hash:0:0::/root:/bin/sh\n", "GHM106"},
		{"NIS entry", "etc/passwd", "+::0:0:::\n", ""},
		{"locked", "etc/shadow", "root:*:19000:0:99999:7:::\nme:!:19000::::::\nyou:!!:19000::::::\nthey:!$6$a$b:1::::::\n", ""},
		{"no password", "etc/shadow", "root:::0:::::\n", "GHM105"},
		{"password", "etc/shadow", "root:$y$j9T$salt$hash:19000::::::\n", "GHM106"},
		{"old password", "etc/shadow", "root:abJnggxhB/yWI:19000::::::\n", "GHM106"},
		{"sudoers", "etc/sudoers", "# me ALL=(ALL) NOPASSWD:ALL\nroot ALL=(ALL:ALL) ALL\n", ""},
		{"sudo without password", "etc/sudoers.d/me", "me ALL=(ALL) NOPASSWD: ALL\n", "GHM117"},
		{"sudo of one command", "etc/sudoers.d/me", "me ALL=(ALL) NOPASSWD: /usr/bin/x\n", ""},
		{"sshd", "etc/ssh/sshd_config", "#PermitRootLogin yes\nPermitRootLogin prohibit-password\n", ""},
		{"sshd lets root in", "etc/ssh/sshd_config", "PermitRootLogin yes\n", "GHM118"},
		{"npmrc", "root/.npmrc", "registry=https://x.test\n", ""},
		{"npmrc with a login", "root/.npmrc", "//x.test/:_authToken=abc\n", "GHM111"},
		{"not text", "etc/passwd", "\x00\xff:\xfe::0\n\n:::::\n", ""},
	}
	for _, test := range tests {
		if !misconfig.WantsContent(test.path) {
			t.Errorf("%s: the content is not asked for", test.path)
		}
		if got := ids(misconfig.Content(test.path, []byte(test.content))); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	found := misconfig.Content("etc/shadow", []byte("a:*:\nroot::1\n"))
	if len(found) != 1 || found[0].Location.StartLine != 2 || !strings.Contains(found[0].Location.Excerpt, "root") {
		t.Errorf("%+v", found)
	}
}

// FuzzContent: whatever the bytes, Content comes back within its bounds and
// shows no password.
func FuzzContent(f *testing.F) {
	f.Add("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"))
	f.Add("etc/shadow", []byte("root:$6$a$b:1:\n"))
	f.Add("etc/sudoers", []byte("me ALL=(ALL) NOPASSWD: ALL\n"))
	f.Add("etc/ssh/sshd_config", []byte("PermitRootLogin yes\n"))
	f.Fuzz(func(t *testing.T, path string, b []byte) {
		found := misconfig.Content(path, b)
		if len(found) > 100 {
			t.Fatalf("%d findings", len(found))
		}
		for _, f := range found {
			if f.ID == "" || f.Location == nil || strings.Contains(f.Location.Excerpt, "$") && !strings.Contains(strings.SplitN(f.Location.Excerpt, " ", 2)[1], "$") {
				t.Fatalf("%+v", f)
			}
		}
	})
}

// TestDocument: docs/misconfig.md has each check as it is, and no other.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "misconfig.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (GHM\d{3}) \| ([A-Z]+)[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$`)
	rows := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		rows[m[1]] = m
	}
	for _, c := range misconfig.Checks() {
		m, ok := rows[c.ID]
		if !ok || m[2] != c.Severity.String() || m[3] != c.Title || m[4] != c.Why || m[5] != c.Fix {
			t.Errorf("the row of %s should be:\n| %s | %s | %s | %s | %s |", c.ID, c.ID, c.Severity, c.Title, c.Why, c.Fix)
		}
		delete(rows, c.ID)
	}
	for id := range rows {
		t.Errorf("%s is no check", id)
	}
}
