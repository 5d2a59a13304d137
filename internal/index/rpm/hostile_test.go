package rpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm/rpmtest"
)

func parse(b []byte, max int) ([]gatehouse.Package, error) {
	return rpm.Parse(bytes.NewReader(b), int64(len(b)), max, func(string, string) {})
}

// TestForms writes the same packages in each form and with each page size.
func TestForms(t *testing.T) {
	long := strings.Repeat("x", 3000)
	blobs := [][]byte{
		packageOf("bash", "5.1", tag{tag: 1022, text: "x86_64"}, tag{tag: 1044, text: "bash-5.1-1.el9.src.rpm"}, tag{tag: 1011, text: "AlmaLinux"}, tag{tag: 1014, text: "GPLv3+"}),
		packageOf("nodejs", "18.0", tag{tag: 1003}, tag{tag: 5096, text: "nodejs:18:1:2"}),
		packageOf("libs", "2.0", tag{tag: 1003, num: 2}, tag{tag: 1044, text: "big-tool-3.0-4.el9.src.rpm"}, tag{tag: 99, text: long}),
		packageOf("gpg-pubkey", "fd431d51"),
	}
	want := []gatehouse.Package{
		{Type: "rpm", Name: "bash", Version: "5.1-1.el9", Arch: "x86_64", Vendor: "AlmaLinux", Licenses: []string{"GPLv3+"}},
		{Type: "rpm", Name: "nodejs", Version: "0:18.0-1.el9", Modularity: "nodejs:18:1:2"},
		{Type: "rpm", Name: "libs", Version: "2:2.0-1.el9", Source: "big-tool", SourceVersion: "2:3.0-4.el9"},
	}
	forms := map[string][]byte{"ndb": ndbOf(blobs...), "bdb": bdbOf(blobs...)}
	for _, size := range []int{512, 1024, 4096, 65536} {
		forms[fmt.Sprintf("sqlite %d", size)] = sqliteOf(t, size, blobs...)
	}
	for name, b := range forms {
		t.Run(name, func(t *testing.T) {
			got, err := parse(b, 10)
			if err != nil {
				t.Fatal(err)
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if got, err := parse(b, 2); !errors.Is(err, rpm.ErrTooMany) || len(got) != 2 {
				t.Errorf("bound of 2: %d packages, %v", len(got), err)
			}
		})
	}
}

// TestSQLiteDeepTree has enough rows for interior pages in several levels.
func TestSQLiteDeepTree(t *testing.T) {
	var blobs [][]byte
	for i := range 5000 {
		blobs = append(blobs, packageOf(fmt.Sprintf("p%04d", i), "1"))
	}
	got, err := parse(sqliteOf(t, 512, blobs...), 10_000)
	if err != nil || len(got) != 5000 || got[4999].Name != "p4999" {
		t.Errorf("%d packages, %v", len(got), err)
	}
}

// TestCorrupt changes single bytes of good databases: any answer is right, but
// a panic, and an endless or boundless one.
func TestCorrupt(t *testing.T) {
	blobs := [][]byte{packageOf("a", "1", tag{tag: 99, text: strings.Repeat("x", 700)}), packageOf("b", "1")}
	for name, good := range map[string][]byte{"sqlite": sqliteOf(t, 512, blobs...), "ndb": ndbOf(blobs...), "bdb": bdbOf(blobs...)} {
		t.Run(name, func(t *testing.T) {
			for at := range good {
				for _, v := range []byte{0, 1, 0x7f, 0xff} {
					bad := bytes.Clone(good)
					bad[at] = v
					if p, err := parse(bad, 10); len(p) > 10 {
						t.Fatalf("byte %d = %d: %d packages, %v", at, v, len(p), err)
					}
				}
			}
			for n := range good {
				_, _ = parse(good[:n], 10)
			}
		})
	}
}

// TestLoops are files that point at themselves.
func TestLoops(t *testing.T) {
	le := binary.LittleEndian
	big := packageOf("a", "1", tag{tag: 99, text: strings.Repeat("x", 2000)})

	chain := bdbOf(big, big)
	le.PutUint32(chain[2*512+16:], 2) // the first overflow page goes on with itself
	shared := bdbOf(big, big)
	le.PutUint32(shared[512+512-32+4:], 2) // the second value is the first's chain

	slots := ndbOf(big)
	for at := 48; at < 4096; at += 16 { // every slot is the same blob
		copy(slots[at:], slots[32:48])
	}
	length := ndbOf(big)
	le.PutUint32(length[4096+12:], 0xffff_ffff)

	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"chain of a page to itself", chain, "in two chains"},
		{"two values of one chain", shared, "in two chains"},
		{"slots of one blob", slots, "overlap"},
		{"blob of 4 GiB", length, "has 4294967295 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse(test.file, 1000)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	t.Run("b-tree page below itself", func(t *testing.T) {
		var blobs [][]byte
		for i := range 200 {
			blobs = append(blobs, packageOf(fmt.Sprint("p", i), "1"))
		}
		b := sqliteOf(t, 512, blobs...)
		looped := false
		for at := 512; at < len(b); at += 512 {
			if b[at] == 5 { // an interior page: its right-most child is itself
				binary.BigEndian.PutUint32(b[at+8:], uint32(at/512+1))
				looped = true
			}
		}
		if _, err := parse(b, 1000); !looped || err == nil || !strings.Contains(err.Error(), "used twice") {
			t.Errorf("looped %v: %v", looped, err)
		}
	})
}

func TestHeaderRefused(t *testing.T) {
	huge := packageOf("a", "1")
	binary.BigEndian.PutUint32(huge, 1<<31)
	tests := []struct {
		name   string
		header []byte
		want   string
	}{
		{"short", []byte{0, 0, 0}, "too short"},
		{"huge", huge, "does not fit"},
		{"no name", headerOf(tag{tag: 1001, text: "1"}), "no name or no version"},
		{"name that does not end", headerOf(tag{tag: 1000, text: strings.Repeat("x", 5000)}), "does not end"},
		{"number for a name", headerOf(tag{tag: 1000, num: 7}), "number where text is due"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse(ndbOf(test.header), 10)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	in := "filesystem\t1.1-19.cm2\t1706\t1705\tMicrosoft Corporation\t(none)\t7596\tx86_64\t0\tfilesystem-1.1-19.cm2.src.rpm\n" +
		"openssl-libs\t1.1.1k-28.cm2\t1706\t1705\tMicrosoft Corporation\t1\t759\tx86_64\t1\topenssl-1.1.1k-28.cm2.src.rpm\n"
	want := []gatehouse.Package{
		{Type: "rpm", Name: "filesystem", Version: "1.1-19.cm2", Arch: "x86_64", Vendor: "Microsoft Corporation"},
		{Type: "rpm", Name: "openssl-libs", Version: "1:1.1.1k-28.cm2", Arch: "x86_64", Vendor: "Microsoft Corporation", Source: "openssl"},
	}
	got, err := rpm.ParseManifest(strings.NewReader(in), 10)
	if d := gocmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if _, err := rpm.ParseManifest(strings.NewReader("a\tb\n"), 10); err == nil {
		t.Error("two columns were taken")
	}
	if _, err := rpm.ParseManifest(strings.NewReader(in), 1); !errors.Is(err, rpm.ErrTooMany) {
		t.Errorf("bound of 1: %v", err)
	}
}

// TestBDBHides: what Berkeley DB finds is found, also where a header is small
// enough to stand in its page, and behind the page that the file calls its last.
func TestBDBHides(t *testing.T) {
	le := binary.LittleEndian
	small := packageOf("small", "1")
	inPage := bdbOf()
	page := inPage[512:1024]
	le.PutUint16(page[20:], 2) // a key of four bytes, then the value
	key := 512 - 5
	value := key - 1 - len(small)
	page[key], page[value] = 1, 1
	le.PutUint16(page[26:], uint16(key))
	le.PutUint16(page[28:], uint16(value))
	copy(page[value+1:], small)

	cut := bdbOf(packageOf("behind", "1", tag{tag: 99, text: strings.Repeat("x", 600)}))
	le.PutUint32(cut[32:], 0)
	for name, file := range map[string][]byte{"small": inPage, "behind": cut} {
		got, err := parse(file, 10)
		if err != nil || len(got) != 1 || got[0].Name != name {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	other := bytes.Clone(inPage)
	other[512+value] = 4 // duplicates of a key
	if _, err := parse(other, 10); err == nil {
		t.Error("an entry of another type was passed over")
	}
}

// TestSQLiteOtherTable: RPM asks for a column by its name.
func TestSQLiteOtherTable(t *testing.T) {
	good := sqliteOf(t, 4096, packageOf("a", "1"))
	for _, change := range [][2]string{{"blob BLOB NOT NULL", "xlob BLOB NOT NULL"}, {"hnum INTEGER PRIMARY KEY", "hnum INTEGER PRIMARY_KEY"}} {
		bad := bytes.ReplaceAll(good, []byte(change[0]), []byte(change[1]))
		if bytes.Equal(bad, good) {
			t.Fatalf("%q is not in the file", change[0])
		}
		if p, err := parse(bad, 10); err == nil || !strings.Contains(err.Error(), "not as RPM makes it") {
			t.Errorf("%s: %+v %v", change[1], p, err)
		}
	}
}

// FuzzDatabase: no input panics, hangs or yields a package without a name.
func FuzzDatabase(f *testing.F) {
	blobs := [][]byte{packageOf("a", "1", tag{tag: 99, text: strings.Repeat("x", 700)}), packageOf("b", "1")}
	f.Add(sqliteOf(f, 512, blobs...))
	f.Add(ndbOf(blobs...))
	f.Add(bdbOf(blobs...))
	f.Fuzz(func(t *testing.T, b []byte) {
		packages, _ := parse(b, 100)
		for _, p := range packages {
			if p.Name == "" || p.Version == "" || p.Type != "rpm" {
				t.Errorf("package %+v", p)
			}
		}
	})
}

// FuzzHeader is FuzzDatabase for the header alone.
func FuzzHeader(f *testing.F) {
	f.Add(packageOf("a", "1", tag{tag: 1003, num: 1}, tag{tag: 1044, text: "a-1-1.src.rpm"}))
	f.Add(rpmtest.Package("a", "1", "1", rpmtest.Files([2]string{"/usr/bin/", "a"}, [2]string{"/etc/", "b"})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		packages, err := parse(ndbOf(b), 1)
		if err == nil && len(packages) == 1 && (packages[0].Name == "" || packages[0].Version == "") {
			t.Errorf("package %+v", packages[0])
		}
	})
}
