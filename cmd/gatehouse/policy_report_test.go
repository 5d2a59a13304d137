package main

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// hostileTrials are cases with everything that a report can hold.
var hostileTrials = []trial{
	{file: "a b/<pod>.yaml", line: 3, name: "Pod \x1b[31m\"&", failures: []trialReason{{"rule-denied", "no <b>&\x00"}, {"unscanned", "x\ny"}}, warnings: []trialReason{{"rule-warned", "w"}}},
	{file: "-", name: "good"},
	{file: "-", name: "later", skipped: true},
}

func TestTrialsAsSARIF(t *testing.T) {
	s := tool.Schema(t, "sarif-schema")
	for _, trials := range [][]trial{nil, hostileTrials} {
		var b strings.Builder
		if err := writeTrials(&b, "sarif", trials); err != nil {
			t.Fatal(err)
		}
		tool.CheckJSON(t, s, []byte(b.String()))
	}
}

func TestTrialsAsJUnit(t *testing.T) {
	var b strings.Builder
	if err := writeTrials(&b, "junit", hostileTrials); err != nil {
		t.Fatal(err)
	}
	var doc trialSuites
	if err := xml.Unmarshal([]byte(b.String()), &doc); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if doc.Tests != 3 || doc.Failures != 1 || len(doc.Suites) != 2 || doc.Suites[1].Skipped != 1 || doc.Suites[0].Cases[0].Failure == nil {
		t.Errorf("%+v", doc)
	}
	if strings.ContainsAny(b.String(), "\x00\x1b") {
		t.Errorf("control characters: %q", b.String())
	}
}
