package decide_test

import (
	"context"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// BenchmarkDecide is one decision about a signed image, its tree included.
func BenchmarkDecide(b *testing.B) {
	a, err := txtar.ParseFile("testdata/tree/all_policies_must_pass.txtar")
	if err != nil {
		b.Fatal(err)
	}
	c := readCase(b, a)
	b.ReportAllocs()
	for b.Loop() {
		decide.Decide(context.Background(), c.set, c.req)
	}
}
