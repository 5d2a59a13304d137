package lang_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

// TestExecutableGo builds a program and reads it back.
func TestExecutableGo(t *testing.T) {
	out := filepath.Join(t.TempDir(), "gobin")
	build := exec.Command("go", "build", "-o", out, "./testdata/gobin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !lang.IsExecutable(b[:16]) {
		t.Error("not recognised by its first bytes")
	}
	got, err := lang.Executable(section(b))
	if err != nil {
		t.Fatal(err)
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(runtime.Version(), "go"), " ")
	for _, want := range []gatehouse.Package{
		{Type: "golang", Name: "stdlib", Version: version},
		{Type: "golang", Name: "golang.org/x/tools", Version: toolsVersion(t)},
	} {
		if !slices.ContainsFunc(got, func(p gatehouse.Package) bool {
			return p.Name == want.Name && p.Version == want.Version && p.Type == want.Type
		}) {
			t.Errorf("no %+v in %d packages", want, len(got))
		}
	}
	for _, p := range got {
		if strings.HasPrefix(p.Version, "v") || p.Version == "(devel)" {
			t.Errorf("%+v", p)
		}
	}
	// Go finds its information also where the section has another name, or where
	// there are no sections: so does who runs govulncheck on it.
	renamed := bytes.Replace(b, []byte("\x00.go.buildinfo\x00"), []byte("\x00.xx.xxxxxxxxx\x00"), 1)
	stripped := bytes.Clone(b)
	clear(stripped[40:48]) // the place of the section table
	clear(stripped[58:64])
	for name, b := range map[string][]byte{"section renamed": renamed, "no sections": stripped} {
		again, err := lang.Executable(section(b))
		if d := cmp.Diff(got, again); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

// TestExecutablePacked: what a packed program was built from nobody can tell, and
// that is said.
func TestExecutablePacked(t *testing.T) {
	plain := elfOf(".text", make([]byte, 4096))
	stripped := bytes.Clone(plain)
	clear(stripped[40:48])
	upx := bytes.Clone(plain)
	copy(upx[200:], "UPX!")
	small := make([]byte, 4096)
	copy(small, "\x7fELF\x01\x01\x01")
	small[16], small[18] = 3, 3
	windows := make([]byte, 4096)
	copy(windows, "MZ")
	copy(windows[500:], "UPX0")
	object := bytes.Clone(stripped)
	object[16] = 4 // a core dump
	for name, test := range map[string]struct {
		file   []byte
		packed bool
	}{
		"plain": {plain, false}, "no section table": {stripped, true}, "UPX": {upx, true}, "32 bits": {small, true}, "Windows": {windows, true},
		"core dump": {object, false}, "tiny": {[]byte("\x7fELF"), false},
	} {
		_, err := lang.Executable(section(test.file))
		if err == nil || errors.Is(err, lang.ErrOther) == test.packed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// toolsVersion asks go itself.
func toolsVersion(t *testing.T) string {
	t.Helper()
	b, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "golang.org/x/tools").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(b)), "v")
}

// TestExecutableGoInformation reads build information that is written here:
// a working tree, a local replacement and a toolchain between releases.
func TestExecutableGoInformation(t *testing.T) {
	const info = "path\texample.test/app\nmod\texample.test/app\t(devel)\t\n" +
		"dep\tk8s.io/api\tv0.0.0\n=>\t./staging/src/k8s.io/api\t(devel)\t\n" +
		"dep\tgithub.com/old/name\tv1.0.0\n=>\tgithub.com/new/name\tv1.2.3+incompatible\th1:x\n"
	for version, want := range map[string]string{"go1.22.1 X:boringcrypto": "1.22.1", "devel go1.23-abcdef": ""} {
		got, err := lang.Executable(section(elfOf(".go.buildinfo", goInfo(version, info))))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"example.test/app ", "github.com/new/name 1.2.3+incompatible", "stdlib " + want}, names(got)); d != "" {
			t.Errorf("%s: %s", version, d)
		}
	}
}

// goInfo is build information in its form since Go 1.18: two strings behind
// the header, each after its length.
func goInfo(version, info string) []byte {
	b := make([]byte, 32)
	copy(b, "\xff Go buildinf:")
	b[14], b[15] = 8, 2
	mark := "0w\xaf\f\x92t\b\x02A\xe1\xc1\a\xe6\xd6\x18\xe6"
	end := "\xf92C1\x86\x18 r\x00\x82B\x10A\x16\xd8\xf2"
	for _, s := range []string{version, mark + info + end} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// elfOf makes an ELF file of one segment, which is the whole file, and two
// sections: the named one and the names.
func elfOf(name string, data []byte) []byte {
	le := binary.LittleEndian
	names := append([]byte("\x00"+name+"\x00.shstrtab\x00"), 0)
	const headSize, programSize, sectionSize = 64, 56, 64
	dataAt := uint64(128)
	namesAt := dataAt + uint64(len(data))
	sectionsAt := namesAt + uint64(len(names))
	h := make([]byte, dataAt)
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], 2)  // executable
	le.PutUint16(h[18:], 62) // x86-64
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[32:], headSize)
	le.PutUint64(h[40:], sectionsAt)
	le.PutUint16(h[52:], headSize)
	le.PutUint16(h[54:], programSize)
	le.PutUint16(h[56:], 1)
	le.PutUint16(h[58:], sectionSize)
	le.PutUint16(h[60:], 3)
	le.PutUint16(h[62:], 2)
	segment := h[headSize:]
	le.PutUint32(segment, 1)     // loaded
	le.PutUint32(segment[4:], 6) // readable, writable
	le.PutUint64(segment[32:], sectionsAt)
	le.PutUint64(segment[40:], sectionsAt)
	section := func(nameAt, kind uint32, at, size uint64) []byte {
		s := make([]byte, sectionSize)
		le.PutUint32(s, nameAt)
		le.PutUint32(s[4:], kind)
		le.PutUint64(s[16:], at)
		le.PutUint64(s[24:], at)
		le.PutUint64(s[32:], size)
		return s
	}
	return slices.Concat(h, data, names, make([]byte, sectionSize), section(1, 1, dataAt, uint64(len(data))),
		section(uint32(len(name))+2, 3, namesAt, uint64(len(names))))
}

func zlibbed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestExecutableRust(t *testing.T) {
	list := `{"packages": [{"name": "app", "version": "0.1.0", "root": true}, {"name": "serde", "version": "1.0.100", "kind": "runtime"},
		{"name": "cc", "version": "1.0.0", "kind": "build"}]}`
	got, err := lang.Executable(section(elfOf(".dep-v0", zlibbed(t, []byte(list)))))
	want := []gatehouse.Package{{Type: "cargo", Name: "app", Version: "0.1.0"}, {Type: "cargo", Name: "serde", Version: "1.0.100"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestExecutableRefuses(t *testing.T) {
	bomb := zlibbed(t, make([]byte, 50<<20))
	tests := []struct {
		name, want string
		body       []byte
	}{
		{"bomb in the Rust list", "larger than 2097152", elfOf(".dep-v0", bomb)},
		{"Rust list is no JSON", "dependency list of Rust", elfOf(".dep-v0", zlibbed(t, []byte("{")))},
		{"Rust list is not compressed", "dependency list of Rust", elfOf(".dep-v0", []byte("plain text"))},
		{"Go mark without information", "cannot be read", append(append([]byte("\x7fELF"), make([]byte, 60)...), "\xff Go buildinf:\x08\x02"...)},
	}
	for _, test := range tests {
		got, err := lang.Executable(section(test.body))
		if err == nil || errors.Is(err, lang.ErrOther) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v %v, want %q", test.name, got, err, test.want)
		}
	}
	for name, body := range map[string][]byte{
		"other program": elfOf(".text", []byte("code")),
		"mark in text":  append(elfOf(".text", []byte("code")), "strings .dep-v0 and x\xff Go buildinf:"...),
		"empty":         nil,
	} {
		if got, err := lang.Executable(section(body)); !errors.Is(err, lang.ErrOther) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

// TestExecutableMarkAcrossWindows finds the mark wherever it stands.
func TestExecutableMarkAcrossWindows(t *testing.T) {
	for _, at := range []int{65520, 65536 - 32, 65536 - 16, 65536, 131072 - 64} {
		b := append(append([]byte("\x7fELF"), make([]byte, at-4)...), "\xff Go buildinf:\x08\x02"...)
		if _, err := lang.Executable(section(b)); err == nil || errors.Is(err, lang.ErrOther) {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

func FuzzExecutable(f *testing.F) {
	f.Add(elfOf(".dep-v0", zlibbed(f, []byte(`{"packages": [{"name": "a", "version": "1"}]}`))))
	f.Add(elfOf(".go.buildinfo", []byte("\xff Go buildinf:\x08\x02")))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = lang.Executable(section(b))
	})
}
