package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// provenanceTrial is a registry with images that the stock cosign attests, and a
// rule about how they must have been built.
type provenanceTrial struct {
	*console
	co   *cosign
	rule string
}

func newProvenanceTrial(t *testing.T) *provenanceTrial {
	t.Helper()
	p := &provenanceTrial{console: newConsole(t), co: newCosign(t)}
	for _, name := range []string{"builder", "stranger"} {
		p.co.must("generate-key-pair", "--output-key-prefix", name)
	}
	p.rule = p.write("rule.yaml", fmt.Sprintf(`apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: built}
spec:
  images: [{glob: "**"}]
  provenance:
    authorities:
      - name: builder
        key:
          data: |
            %s
    builders:
      - {id: "https://ci.example/hardened@*", level: 3}
      - {id: "https://ci.example/plain", level: 1}
    minLevel: 2
    sourceRepositories: [github.com/acme/app]
    entryPoints: [.github/workflows/release.yml]
`, p.pem("builder.pub", 12)))
	return p
}

func (p *provenanceTrial) pem(file string, indent int) string {
	p.t.Helper()
	pem, err := os.ReadFile(filepath.Join(p.co.dir, file))
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n"+strings.Repeat(" ", indent))
}

func (p *provenanceTrial) write(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.co.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// attest has cosign state how ref was built.
func (p *provenanceTrial) attest(key, version, builder, source, ref string, flags ...string) {
	p.t.Helper()
	var predicate any
	if version == "slsaprovenance1" {
		predicate = map[string]any{
			"buildDefinition": map[string]any{
				"buildType":            "https://actions.github.io/buildtypes/workflow/v1",
				"externalParameters":   map[string]any{"workflow": map[string]string{"repository": source, "ref": "refs/heads/main", "path": ".github/workflows/release.yml"}},
				"resolvedDependencies": []any{map[string]any{"uri": "git+" + source + "@refs/heads/main", "digest": map[string]string{"gitCommit": "c27d339ee6075c1f744c5d4b200f7901aad2c369"}}},
			},
			"runDetails": map[string]any{"builder": map[string]string{"id": builder}, "metadata": map[string]string{"invocationId": "run/1"}},
		}
	} else {
		predicate = map[string]any{
			"builder": map[string]string{"id": builder}, "buildType": "https://ci.example/type",
			"invocation": map[string]any{"configSource": map[string]any{"uri": "git+" + source, "digest": map[string]string{"sha1": "c27d339ee6075c1f744c5d4b200f7901aad2c369"}, "entryPoint": ".github/workflows/release.yml"}},
			"materials":  []any{},
		}
	}
	b, err := json.Marshal(predicate)
	if err != nil {
		p.t.Fatal(err)
	}
	args := []string{"attest", "--yes", "--key", key + ".key", "--type", version, "--predicate", p.write("predicate.json", string(b))}
	if len(flags) == 0 {
		flags = []string{"--signing-config", p.co.signingConfig}
	}
	p.co.must(append(append(args, flags...), ref)...)
}

// decide tries a policy on a Pod of ref.
func (p *provenanceTrial) decide(code int, policy, ref string, says ...string) {
	p.t.Helper()
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: %q}]}\n", ref)
	if got := p.runWith(manifest, "policy", "test", "--policy", policy, "-f", "-"); got != code {
		p.t.Errorf("exit %d, want %d\n%s%s", got, code, p.stdout, p.stderr)
	}
	for _, s := range says {
		p.wantSaid(p.stdout, s)
	}
}

const (
	hardened = "https://ci.example/hardened@v1"
	acmeApp  = "https://github.com/acme/app"
)

// TestProvenanceOfStockCosign: an image runs if its provenance is signed by the
// builder's key and says what the rule asks for; each other way is refused with the
// reason named.
func TestProvenanceOfStockCosign(t *testing.T) {
	p := newProvenanceTrial(t)
	legacy := []string{"--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"}
	refs := registryWithImages(t, true, 9)
	p.attest("builder", "slsaprovenance1", hardened, acmeApp, refs[0])
	p.decide(0, p.rule, refs[0], "[provenance-valid]", "build level 3 by the rule", "at c27d339ee6075c1f744c5d4b200f7901aad2c369")
	p.attest("builder", "slsaprovenance", hardened, acmeApp+".git@refs/heads/main", refs[1], legacy...)
	p.decide(0, p.rule, refs[1], "[provenance-valid]", "SLSA provenance v0.2")
	p.attest("builder", "slsaprovenance1", "https://evil.example/slsa3", acmeApp, refs[2])
	p.decide(1, p.rule, refs[2], "[provenance-builder]", "https://evil.example/slsa3")
	p.attest("builder", "slsaprovenance1", hardened, "https://github.com/evil/app", refs[3])
	p.decide(1, p.rule, refs[3], "[provenance-source]", "https://github.com/evil/app")
	p.attest("builder", "slsaprovenance1", "https://ci.example/plain", acmeApp, refs[4])
	p.decide(1, p.rule, refs[4], "[provenance-level]", "trusted for level 1")
	p.attest("stranger", "slsaprovenance1", hardened, acmeApp, refs[5])
	p.decide(1, p.rule, refs[5], "[provenance-invalid]", "wrong-key")
	p.decide(1, p.rule, refs[6], "[provenance-missing]")
	co := p.co
	co.sign(true, "--key", "builder.key", refs[7])
	p.decide(1, p.rule, refs[7], "[provenance-missing]") // a signature is no provenance
	p.transplant(refs[1], refs[8])
	p.decide(1, p.rule, refs[8], "[provenance-invalid]", "other-digest")
	// What is wrong does not stand in the way of what is right.
	p.attest("builder", "slsaprovenance1", hardened, acmeApp, refs[3])
	p.decide(0, p.rule, refs[3], "[provenance-valid]")
}

// transplant puts the attestations of one image onto another.
func (p *provenanceTrial) transplant(from, to string) {
	p.t.Helper()
	tag := func(ref string) name.Reference {
		repo, digest, _ := strings.Cut(ref, "@")
		r, err := name.ParseReference(repo + ":" + strings.Replace(digest, ":", "-", 1) + ".att")
		if err != nil {
			p.t.Fatal(err)
		}
		return r
	}
	img, err := remote.Image(tag(from))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := remote.Write(tag(to), img); err != nil {
		p.t.Fatal(err)
	}
}

// TestAttestationsOfStockCosign: both of a ClusterImagePolicy's attestations have to
// be there, and its Rego policy has to hold of one.
func TestAttestationsOfStockCosign(t *testing.T) {
	p := newProvenanceTrial(t)
	policy := p.write("cip.yaml", fmt.Sprintf(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: attested}
spec:
  images: [{glob: "**"}]
  authorities:
    - name: builder
      key:
        data: |
          %s
      attestations:
        - name: provenance
          predicateType: https://slsa.dev/provenance/v1
          policy:
            type: rego
            data: |
              package sigstore
              isCompliant {
                input.predicateType == "https://slsa.dev/provenance/v1"
                startswith(input.predicate.runDetails.builder.id, "https://ci.example/hardened@")
              }
        - name: scan
          predicateType: https://cosign.sigstore.dev/attestation/vuln/v1
`, p.pem("builder.pub", 10)))
	ref := registryWithImages(t, true, 1)[0]
	p.decide(1, policy, ref, "[attestation-missing]", "no matching attestations with type https://slsa.dev/provenance/v1")
	p.attest("builder", "slsaprovenance1", "https://evil.example/b", acmeApp, ref)
	p.decide(1, policy, ref, "[attestation-refused]", "[attestation-missing]", "other-predicate")
	scan := p.write("scan.json", `{"scanner":{"uri":"x","version":"1","db":{"uri":"","version":"","lastUpdate":"2026-01-01T00:00:00Z"},"result":{}},"metadata":{"scanStartedOn":"2026-01-01T00:00:00Z","scanFinishedOn":"2026-01-01T00:00:00Z"}}`)
	p.co.must("attest", "--yes", "--signing-config", p.co.signingConfig, "--key", "builder.key", "--type", "vuln", "--predicate", scan, ref)
	p.decide(1, policy, ref, "[attestation-refused]")
	p.attest("builder", "slsaprovenance1", hardened, acmeApp, ref)
	p.decide(0, policy, ref, "[attestation-valid]")
	old := p.write("old.yaml", fmt.Sprintf(`apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: scanned-lately}
spec:
  images: [{glob: "**"}]
  attestations:
    - name: scan
      predicateType: https://cosign.sigstore.dev/attestation/vuln/v1
      maxAge: 24h
      authorities:
        - name: builder
          key:
            data: |
              %s
`, p.pem("builder.pub", 14)))
	p.decide(1, old, ref, "[attestation-old]", "2026-01-01T00:00:00Z")
}
