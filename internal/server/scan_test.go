package server

import (
	"encoding/json"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// TestRunsNowhere: only what every reader reads alike is left out of the scan
// of an index.
func TestRunsNowhere(t *testing.T) {
	for platform, want := range map[string]bool{
		`{"os":"unknown","architecture":"unknown"}`:                true,
		`{"os":"unknown","architecture":"unknown","variant":"v8"}`: true,
		`{"os":"linux","architecture":"unknown"}`:                  false,
		`{"os":"unknown"}`:                          false,
		`{"OS":"unknown","Architecture":"unknown"}`: false,
		`{"OS":"linux","Architecture":"amd64","os":"unknown","architecture":"unknown"}`: false,
		`{"os":"unknown","architecture":"unknown","Os":"linux","architecturE":"amd64"}`: false,
		`{"os":["unknown"],"architecture":"unknown"}`:                                   false,
		`null`: false,
		``:     false,
	} {
		if got := runsNowhere(gatehouse.Descriptor{Platform: json.RawMessage(platform)}); got != want {
			t.Errorf("%s: %v, want %v", platform, got, want)
		}
	}
}
