package index_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("of the storage") }

// Layers are read and decompressed in goroutines of their own, where a panic
// would end the process and not the job.
func TestPanicBesideTheWalk(t *testing.T) {
	_, err := index.Layer(t.Context(), panickingReader{}, index.DefaultLimits(), index.Analysis{})
	if err == nil || gatehouse.CodeOf(err) == gatehouse.CodeInvalid || !strings.Contains(err.Error(), "of the storage") {
		t.Errorf("a reader that panics: %v, want an error that does not blame the layer", err)
	}
}
