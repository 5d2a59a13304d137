package lang_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

func pom(group, artifact, version string) member {
	return text("META-INF/maven/"+group+"/"+artifact+"/pom.properties",
		fmt.Sprintf("#Generated\ngroupId=%s\nartifactId=%s\nversion=%s\n", group, artifact, version))
}

func TestJava(t *testing.T) {
	log4j := zipOf(t, pom("org.apache.logging.log4j", "log4j-core", "2.14.1"), text("org/x/A.class", "\xca\xfe\xba\xbe"))
	manifestOnly := zipOf(t, text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nImplementation-Vendor-Id: org.foo\r\nImplementation-Title: foo-\r\n core\r\nImplementation-Version: 3.2.1\r\n\r\nName: org/other/\r\nImplementation-Version: 9.9\r\n"))
	tests := []struct {
		name, path string
		body       []byte
		want       []string
	}{
		{"pom.properties", "app/log4j.jar", log4j, []string{"org.apache.logging.log4j:log4j-core 2.14.1"}},
		{"shaded", "app/all.jar", zipOf(t, pom("a", "a", "1"), pom("b", "b", "2")), []string{"a:a 1", "b:b 2"}},
		{"nested", "app/boot.jar", zipOf(t, pom("my", "app", "1"), member{"BOOT-INF/lib/log4j.jar", log4j}),
			[]string{"my:app 1", "org.apache.logging.log4j:log4j-core 2.14.1"}},
		{"nested twice", "app/all.ear", zipOf(t, member{"web.war", zipOf(t, member{"WEB-INF/lib/log4j.jar", log4j})}),
			[]string{"org.apache.logging.log4j:log4j-core 2.14.1"}},
		{"main section of the manifest", "app/x.jar", manifestOnly, []string{"org.foo:foo-core 3.2.1"}},
		{"pom.properties before manifest and file name", "app/other-9.9.jar", zipOf(t, pom("org.a", "a", "1"),
			text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nImplementation-Vendor-Id: org.b\nImplementation-Title: b\nImplementation-Version: 2\n")), []string{"org.a:a 1"}},
		{"manifest before file name", "app/other-9.9.jar",
			zipOf(t, text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nImplementation-Vendor-Id: org.b\nImplementation-Title: b\nImplementation-Version: 2\n")), []string{"org.b:b 2"}},
		{"file name that the manifest agrees with", "app/foo-core-2.0.jar",
			zipOf(t, text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nImplementation-Vendor-Id: org.foo\nImplementation-Title: foo\nImplementation-Version: 2.0\n")), []string{"org.foo:foo-core 2.0"}},
		{"bundle", "app/guava.jar", zipOf(t, text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nBundle-SymbolicName: com.google.guava\nBundle-Version: 31.0.0.jre\nBundle-Name: Guava\n")),
			[]string{"com.google.guava:Guava 31.0.0.jre"}},
		{"shaded and nested", "app/boot.jar", zipOf(t, pom("my", "app", "1"), pom("shaded", "in", "2"), member{"BOOT-INF/lib/log4j.jar", log4j}, member{"BOOT-INF/lib/commons-io-2.6.jar", zipOf(t, text("x.class", ""))}),
			[]string{"commons-io:commons-io 2.6", "my:app 1", "org.apache.logging.log4j:log4j-core 2.14.1", "shaded:in 2"}},
		{"file name", "app/commons-io-2.6.jar", zipOf(t, text("x.class", "x")), []string{"commons-io:commons-io 2.6"}},
		{"script before the archive", "app/run.jar", append([]byte("#!/bin/sh\nexec java -jar $0\n"), log4j...),
			[]string{"org.apache.logging.log4j:log4j-core 2.14.1"}},
		{"nothing known", "app/x.jar", zipOf(t, text("x.class", "x")), []string{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := lang.Java(t.Context(), test.path, section(test.body), archiveLimits())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, names(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestJavaBounds: entries that overlap, as those of a zip bomb do, are paid for
// each time that they are read, whether or not anything of them is kept.
func TestJavaBounds(t *testing.T) {
	empty := text("META-INF/MANIFEST.MF", strings.Repeat("\n", 1<<20))
	var many []member
	for range 50 {
		many = append(many, empty)
	}
	limits := archiveLimits()
	limits.BytesMax = 10 << 20
	if _, err := lang.Java(t.Context(), "x.jar", section(zipOf(t, many...)), limits); err == nil || !strings.Contains(err.Error(), "more bytes than may be read") {
		t.Errorf("one file: %v", err)
	}
	limits = archiveLimits()
	left := int64(10 << 20)
	limits.Spend = func(n int64) bool { left -= n; return left >= 0 }
	if _, err := lang.Java(t.Context(), "x.jar", section(zipOf(t, many...)), limits); err == nil {
		t.Error("a layer's bound was not asked")
	}
	limits = archiveLimits()
	limits.EntriesMax = 100
	inner := make([]member, 0, 60)
	for i := range 60 {
		inner = append(inner, text(fmt.Sprint(i), ""))
	}
	outer := append(inner[:59:59], member{"x.jar", zipOf(t, inner...)})
	if _, err := lang.Java(t.Context(), "x.jar", section(zipOf(t, outer...)), limits); err == nil || !strings.Contains(err.Error(), "more than 100 entries") {
		t.Errorf("entries in entries: %v", err)
	}
}

// TestJavaOfAnyName: the virtual machine does not ask for the name.
func TestJavaOfAnyName(t *testing.T) {
	log4j := zipOf(t, pom("org.apache.logging.log4j", "log4j-core", "2.14.1"), text("org/x/A.class", "\xca\xfe\xba\xbe"))
	boot := zipOf(t, text("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n"), member{"BOOT-INF/lib/log4j.jar", log4j})
	for name, file := range map[string][]byte{"plain": log4j, "nested": boot, "behind a script": append([]byte("#!/bin/sh\n"), log4j...)} {
		got, err := lang.JavaOfAnyName(t.Context(), "opt/data.bin", section(file), archiveLimits())
		if d := cmp.Diff([]string{"org.apache.logging.log4j:log4j-core 2.14.1"}, names(got)); d != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
	document := zipOf(t, text("word/document.xml", "<x/>"), member{"lib/log4j.jar", log4j})
	if got, err := lang.JavaOfAnyName(t.Context(), "x.docx", section(document), archiveLimits()); !errors.Is(err, lang.ErrOther) {
		t.Errorf("document: %+v %v", got, err)
	}
	broken := append(bytes.Clone(log4j[:40]), log4j[60:]...)
	broken[len(broken)-12] ^= 0x55 // the size of the directory
	if got, err := lang.JavaOfAnyName(t.Context(), "a.zip", section(broken), archiveLimits()); !errors.Is(err, lang.ErrOther) {
		t.Errorf("damaged zip: %+v %v", got, err)
	}
	if got, err := lang.JavaOfAnyName(t.Context(), "a.bin", section(broken), archiveLimits()); err == nil || errors.Is(err, lang.ErrOther) {
		t.Errorf("damaged archive: %+v %v", got, err)
	}
}

func TestJavaRefuses(t *testing.T) {
	nest := zipOf(t, pom("deep", "deep", "1"))
	for range 4 {
		nest = zipOf(t, member{"x.jar", nest})
	}
	zeros := make([]byte, 6<<20)
	var many, poms, jars []member
	for i := range 150 {
		jars = append(jars, member{fmt.Sprint(i, ".jar"), zipOf(t, pom("a", fmt.Sprint("a", i), "1"))})
	}
	for i := range 1500 {
		many = append(many, text(fmt.Sprint("f", i), ""))
	}
	for i := range 12 {
		poms = append(poms, member{fmt.Sprint(i, ".jar"), zeros[:1<<20]})
	}
	lying := zipOf(t, member{"x.jar", zeros})
	// The directory says that the entry has 10 bytes; it inflates to 6 MiB.
	at := bytes.LastIndex(lying, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(lying[at+24:], 10)
	tests := []struct {
		name string
		body []byte
		want string
	}{
		{"nested too deep", nest, "nested more than 3 deep"},
		{"inner archive too large", zipOf(t, member{"x.jar", zeros}), "more than may be opened"},
		{"inner archives too large together", zipOf(t, poms...), "more than may be opened"},
		{"too many entries", zipOf(t, many...), "more than 1000 entries"},
		{"too many packages in inner archives", zipOf(t, jars...), "more than 100 packages"},
		{"large manifest", zipOf(t, member{"META-INF/MANIFEST.MF", zeros}), "larger than 1048576"},
		{"entry larger than it says", lying, ""},
		{"truncated directory", append([]byte("PK\x03\x04"), "xxxxPK\x05\x06\x00\x00\x00\x00\x05\x00\x05\x00\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00"...), "archive"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			limits := archiveLimits()
			if strings.Contains(test.name, "together") {
				for i := range poms { // archives that hold nothing, so that only their size counts
					poms[i].body = append(bytes.Clone(zeros[:1<<20]), zipOf(t)...)
				}
				test.body = zipOf(t, poms...)
			}
			got, err := lang.Java(t.Context(), "x.jar", section(test.body), limits)
			if test.want == "" {
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v %v, want %q", got, err, test.want)
			}
		})
	}
	if _, err := lang.Java(t.Context(), "x.jar", section("this is no archive"), archiveLimits()); !errors.Is(err, lang.ErrOther) {
		t.Errorf("text: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lang.Java(ctx, "x.jar", section(zipOf(t, pom("a", "a", "1"))), archiveLimits()); err == nil {
		t.Error("a cancelled read went on")
	}
}

// TestJavaManifestLeavesNothingRunning: osv-scalibr leaves a goroutine behind
// for each manifest that it cannot parse to the end.
func TestJavaManifestLeavesNothingRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 50 {
		manifest := strings.Repeat("bad line\n", i) + ": no key\nGood: yes\nBad Key: x\n continued\n\x00\x01: x\n" + strings.Repeat("x", 100_000) + ": y\n"
		_, _ = lang.Java(t.Context(), "x.jar", section(zipOf(t, text("META-INF/MANIFEST.MF", manifest+strings.Repeat("Tail: x\n", 1000)))), archiveLimits())
	}
	for range 10_000 { // a goroutine that is done may still be counted
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func FuzzJava(f *testing.F) {
	f.Add(zipOf(f, pom("a", "a", "1"), member{"x.jar", zipOf(f, text("META-INF/MANIFEST.MF", "Implementation-Title: b\n"))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = lang.Java(context.Background(), "x-1.0.jar", section(b), archiveLimits())
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("Manifest-Version: 1.0\nImplementation-Title: b\n c\n\nName: x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := lang.Java(context.Background(), "x.jar", section(zipOf(t, member{"META-INF/MANIFEST.MF", b})), archiveLimits())
		if err != nil {
			t.Errorf("a manifest within bounds was refused: %v", err)
		}
	})
}
