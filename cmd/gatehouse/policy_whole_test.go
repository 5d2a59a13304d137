package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestWholeOfStockCosign: spec.policy counts what stock cosign has signed and attested,
// in the form of today and in that of before, and judges the image's configuration and
// the object beside it.
func TestWholeOfStockCosign(t *testing.T) {
	p := &provenanceTrial{console: newConsole(t), co: newCosign(t)}
	for _, name := range []string{"build", "release", "scanner"} {
		p.co.must("generate-key-pair", "--output-key-prefix", name)
	}
	scan := func(n int) string {
		return fmt.Sprintf(`{"invocation":{"parameters":null,"uri":"","event_id":"","builder.id":""},"scanner":{"uri":"scanner.example","version":"1","db":{"uri":"","version":""},"result":{"critical":%d}},"metadata":{"scanStartedOn":"2026-01-01T00:00:00Z","scanFinishedOn":"2026-01-01T00:00:01Z"}}`, n)
	}
	secret := func(name string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n  cosign.pub: |\n    %s\n", name, p.pem(name+".pub", 4))
	}
	policy := func(language, text string) string {
		return p.write("whole.yaml", fmt.Sprintf(`apiVersion: policy.sigstore.dev/v1alpha1
kind: ClusterImagePolicy
metadata: {name: whole}
spec:
  images: [{glob: "**"}]
  authorities:
    - {name: build, key: {secretRef: {name: build}}}
    - {name: release, key: {secretRef: {name: release}}}
    - name: scanner
      key: {secretRef: {name: scanner}}
      attestations:
        - name: scan
          predicateType: https://cosign.sigstore.dev/attestation/vuln/v1
          policy:
            type: cue
            data: |
              predicate: scanner: {uri!: "scanner.example", result: critical!: 0}
  policy:
    type: %s
    fetchConfigFile: true
    includeSpec: true
    includeTypeMeta: true
    data: |
      %s
`, language, strings.ReplaceAll(text, "\n", "\n      "))+secret("build")+secret("release")+secret("scanner"))
	}
	cue := `authorityMatches: {
  build!: signatures!: [...]
  release!: signatures!: [...]
  scanner!: attestations!: scan!: [{predicateType!: _}, ...]
}
config: [string]: architecture!: string
spec: containers: [...{name!: "c"}]
typemeta: {kind!: "Pod", apiVersion!: "v1"}`
	rego := `package sigstore
isCompliant[response] {
  passed := {name | input.authorityMatches[name]}
  keys := {s.key | s := input.authorityMatches[_].signatures[_]}
  ok := count(keys) == 2; count(input.config) == 1; input.typemeta.kind == "Pod"
  response := {"result": ok, "error": sprintf("only %v passed", [passed])}
}`
	legacy := []string{"--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"}
	refs := registryWithImages(t, true, 4)
	for i, flags := range [][]string{{"--signing-config", p.co.signingConfig}, legacy} {
		for _, key := range []string{"build", "release"} {
			p.co.must(append(append([]string{"sign", "--yes", "--key", key + ".key"}, flags...), refs[i])...)
		}
		p.co.must(append(append([]string{"attest", "--yes", "--key", "scanner.key", "--type", "vuln", "--predicate", p.write("scan.json", scan(0))}, flags...), refs[i])...)
		p.decide(0, policy("cue", cue), refs[i], "[signature-valid]", "[attestation-valid]")
		p.decide(0, policy("rego", rego), refs[i])
		p.decide(1, policy("cue", strings.Replace(cue, `"c"`, `"d"`, 1)), refs[i], "[policy-refused]", "spec.containers.0.name: conflicting values")
	}
	// One signer is one authority too few, and a scan that found something is none.
	p.co.must("sign", "--yes", "--key", "build.key", "--signing-config", p.co.signingConfig, refs[2])
	p.co.must("attest", "--yes", "--key", "scanner.key", "--type", "vuln", "--predicate", p.write("scan.json", scan(2)), "--signing-config", p.co.signingConfig, refs[2])
	p.decide(1, policy("cue", cue), refs[2], "[policy-refused]", "authorityMatches.release: field is required but not present", "build passed, release, scanner did not",
		"failed evaluating cue policy for scan: failed to evaluate the policy with error: predicate.scanner.result.critical: conflicting values")
	p.decide(1, policy("rego", rego), refs[2], "[policy-refused]", "failed evaluating rego policy for type ClusterImagePolicy")
	p.decide(1, policy("cue", cue), refs[3], "[signature-missing]", "[attestation-missing]")
}
