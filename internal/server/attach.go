package server

import (
	"bytes"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
)

// bills are the bills of materials that are attached to images. They hold no
// findings, which change, and no name of a repository or of this server: the same
// image has the same bill everywhere.
func (s *Server) bills() []pipeline.Bill {
	if !s.cfg.SBOMReferrers {
		return nil
	}
	in := func(format sbom.Format) pipeline.Bill {
		return pipeline.Bill{Type: format.MediaType(), Write: func(inv gatehouse.Inventory, platform string, created time.Time) ([]byte, error) {
			var b bytes.Buffer
			err := sbom.Write(&b, format, inv, sbom.Options{Platform: platform, Created: created})
			return b.Bytes(), err
		}}
	}
	return []pipeline.Bill{in(sbom.SPDX), in(sbom.CycloneDX)}
}
