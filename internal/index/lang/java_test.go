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
