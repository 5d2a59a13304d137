package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// BenchmarkObserve is what naming, counting and logging a request costs.
func BenchmarkObserve(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, accessLog := range []string{"all", "off"} {
		b.Run(accessLog, func(b *testing.B) {
			cfg := config.Default()
			cfg.AccessLog = accessLog
			s := &Server{cfg: cfg, log: slog.New(contextLog{slog.NewTextHandler(null, nil)}), metrics: newMetrics("test")}
			h := s.observe("main", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			r := httptest.NewRequest("GET", "/v2/team/app/manifests/v1", nil)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
