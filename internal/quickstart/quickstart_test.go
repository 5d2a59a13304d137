package quickstart

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func tell(t *testing.T, tamper tamper) (string, bool) {
	t.Helper()
	var out, log strings.Builder
	ok, err := Run(t.Context(), Options{Once: true, Data: t.TempDir(), Out: &out, Log: &log, tamper: tamper})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), log.String())
	}
	if log.Len() > 0 {
		t.Logf("the server logged:\n%s", log.String())
	}
	return out.String(), ok
}

// joined undoes the wrapping of the webhook's lines.
var wrapped = regexp.MustCompile(`\n +\|   `)

func joined(story string) string { return wrapped.ReplaceAllString(story, " ") }

// answers counts how the webhook judged the Pods of the story.
func answers(story string) (admitted, denied int) {
	return strings.Count(story, "ADMITTED"), strings.Count(story, "DENIED")
}

func TestStoryComesOutAsTold(t *testing.T) {
	story, ok := tell(t, tamper{})
	if admitted, denied := answers(story); !ok || admitted != 1 || denied != 4 {
		t.Errorf("as told: %v, %d admitted, %d denied:\n%s", ok, admitted, denied, story)
	}
	// Both signatures hold: the one by the key is that of an image that is denied, but
	// not for its signature.
	if !regexp.MustCompile(`(?m)^legacy .* severity-exceeded \(no-critical\)$`).MatchString(story) {
		t.Errorf("the signature by the key does not hold:\n%s", story)
	}
	for _, part := range []string{
		"0 critical before, 1 critical now", "CVE-2021-44906", "comes from an untrusted registry", "require-production-signature", "no-critical",
	} {
		if !strings.Contains(joined(story), part) {
			t.Errorf("the story does not tell %q:\n%s", part, story)
		}
	}
	readable(t, story)
}

// readable: a newcomer reads it on a screen. No line runs on, digests are whole,
// the table says why, and the end says what to type.
func readable(t *testing.T, story string) {
	t.Helper()
	for line := range strings.SplitSeq(story, "\n") {
		if n := utf8.RuneCountInString(line); n > 160 {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
	for _, part := range []string{
		"worker (not signed)                denied    yes       signature-missing (require-production-signature)",
		"no-matching-policy, rule-denied (kubernetes.validating.images)",
		"denied    yes       severity-exceeded (no-critical)",
		"hint: update minimist to 1.2.6",
		"Registry: http://127.0.0.1:", "gatehouse explain --server http://127.0.0.1:", "gatehouse scan --server", "gatehouse db status --server",
	} {
		if !strings.Contains(joined(story), part) {
			t.Errorf("the story does not tell %q:\n%s", part, story)
		}
	}
	if n := len(wholeDigest.FindAllString(story, -1)); n != 3 {
		t.Errorf("%d digests of images, want 3:\n%s", n, story)
	}
}

var wholeDigest = regexp.MustCompile(`(?m)^ +sha256:[0-9a-f]{64}$`)

// Without the signature the first Pod must be denied: the verdict on the screen
// is the webhook's, not the story's.
func TestWithoutSignatureTheStoryFails(t *testing.T) {
	story, ok := tell(t, tamper{unsigned: true})
	if admitted, _ := answers(story); ok || admitted != 0 {
		t.Errorf("as told: %v, %d admitted:\n%s", ok, admitted, story)
	}
}

// Signed as somebody whom the policy does not name, it must be denied as well.
func TestSignedByAStrangerTheStoryFails(t *testing.T) {
	story, ok := tell(t, tamper{stranger: true})
	if admitted, _ := answers(story); ok || admitted != 0 || !strings.Contains(story, "wrong-identity") && !strings.Contains(story, "signature-invalid") {
		t.Errorf("as told: %v, %d admitted:\n%s", ok, admitted, story)
	}
}

// With a policy turned round the verdicts turn round.
func TestWithOtherPoliciesTheStoryFails(t *testing.T) {
	for name, c := range map[string]struct {
		policy   func(name, s string) string
		admitted int // instead of 1
	}{
		"the foreign registry is trusted and nothing else": {
			func(name, s string) string {
				if name == "trusted-registry.rego" {
					return strings.ReplaceAll(s, "your-registry.com/", "my-evil-image.net/")
				}
				return s
			}, 0},
		"critical is allowed": {
			func(_, s string) string { return strings.ReplaceAll(s, "maxSeverity: HIGH", "maxSeverity: CRITICAL") }, 3},
		"signatures are only asked for": {
			func(name, s string) string {
				if name == "require-production-signature.yaml" {
					return strings.ReplaceAll(s, "spec:\n", "spec:\n  mode: warn\n")
				}
				return s
			}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			story, ok := tell(t, tamper{policy: c.policy})
			if admitted, _ := answers(story); ok || admitted != c.admitted {
				t.Errorf("as told: %v, %d admitted, want %d:\n%s", ok, admitted, c.admitted, story)
			}
		})
	}
}

func TestDataDirectoryMustBeFresh(t *testing.T) {
	dir := t.TempDir()
	if _, ok := tellIn(t, dir); !ok {
		t.Fatal("the first story failed")
	}
	_, err := Run(t.Context(), Options{Once: true, Data: dir, Out: &strings.Builder{}, Log: &strings.Builder{}})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
}

func tellIn(t *testing.T, dir string) (string, bool) {
	t.Helper()
	var out strings.Builder
	ok, err := Run(t.Context(), Options{Once: true, Data: dir, Out: &out, Log: &strings.Builder{}})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), ok
}
