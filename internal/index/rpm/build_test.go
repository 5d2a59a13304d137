package rpm_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index/rpm/rpmtest"
)

// tag is one entry of a package header under test: a text, or else a number.
type tag struct {
	tag  uint32
	text string
	num  uint32
}

func headerOf(tags ...tag) []byte {
	var list []rpmtest.Tag
	for _, e := range tags {
		t := rpmtest.Tag{Tag: e.tag, Text: e.text}
		if e.text == "" {
			t.Nums = []uint32{e.num}
		}
		list = append(list, t)
	}
	return rpmtest.Header(list...)
}

func packageOf(name, version string, more ...tag) []byte {
	return headerOf(append([]tag{{tag: 1000, text: name}, {tag: 1001, text: version}, {tag: 1002, text: "1.el9"}}, more...)...)
}

func sqliteOf(t testing.TB, pageSize int, blobs ...[]byte) []byte {
	return rpmtest.SQLite(t, pageSize, blobs...)
}

func ndbOf(blobs ...[]byte) []byte { return rpmtest.NDB(blobs...) }
func bdbOf(blobs ...[]byte) []byte { return rpmtest.BDB(blobs...) }
