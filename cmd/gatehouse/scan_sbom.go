package main

import (
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// sbomFormats are the formats of bills of materials.
var sbomFormats = []string{}

func (r *scanRun) writeSBOM(io.Writer) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "no bill of materials can be written")
}
