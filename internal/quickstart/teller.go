package quickstart

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// answerWidth is where the webhook's long lines are wrapped, in characters.
const answerWidth = 100

// teller prints the story as it happens and remembers whether it came out as
// told.
type teller struct {
	w     io.Writer
	steps int
	ok    bool
	rows  []tableRow
	// lastDenied is the id of the last denial, to explain.
	lastDenied string
}

type tableRow struct {
	pod     pod
	allowed bool
	why     string
}

func (t *teller) say(text string) { fmt.Fprint(t.w, text) }

func (t *teller) step(title string) {
	t.steps++
	fmt.Fprintf(t.w, "\n%d. %s\n", t.steps, title)
}

func (t *teller) line(format string, args ...any) {
	fmt.Fprintln(t.w, strings.TrimRight("   "+fmt.Sprintf(format, args...), " "))
}

// check marks a step that did not come out as told.
func (t *teller) check(ok bool) {
	if !ok {
		t.ok = false
		t.line("NOT AS EXPECTED")
	}
}

var decisionID = regexp.MustCompile(`decision[: ]+([0-9a-zA-Z-]+)`)

// pod tells what the webhook answered about a Pod, whole.
func (t *teller) pod(p pod, allowed bool, message string) {
	t.line("%-8s  %-40s  %s", strings.ToUpper(word(allowed)), p.image, p.because)
	for line := range strings.SplitSeq(strings.TrimSpace(message), "\n") {
		reason, hint, hinted := strings.Cut(line, "; hint: ")
		t.answer(reason)
		if hinted {
			t.answer("hint: " + hint)
		}
	}
	if m := decisionID.FindStringSubmatch(message); m != nil && !allowed {
		t.lastDenied = m[1]
	}
	t.check(allowed == p.allowed)
	t.rows = append(t.rows, tableRow{p, allowed, why(allowed, message)})
}

// answer prints a line of the webhook's, wrapped for the screen.
func (t *teller) answer(line string) {
	indent := ""
	for _, part := range wrap(line, answerWidth) {
		t.line("          | %s%s", indent, part)
		indent = "  "
	}
}

// wrap divides a line at spaces. A word longer than width stays whole.
func wrap(line string, width int) []string {
	var parts []string
	at, length := "", 0
	for word := range strings.FieldsSeq(line) {
		n := utf8.RuneCountInString(word)
		switch {
		case at == "":
			at, length = word, n
		case length+1+n > width:
			parts = append(parts, at)
			at, length = word, n
		default:
			at, length = at+" "+word, length+1+n
		}
	}
	if at == "" {
		return parts
	}
	return append(parts, at)
}

var (
	policyName = regexp.MustCompile(`^failed policy: ([^ ]+): `)
	reasonCode = regexp.MustCompile(` \[([a-z-]+)\](?:; hint: |$)`)
)

// why shortens the webhook's answer to its reason codes and their policies.
func why(allowed bool, message string) string {
	if allowed {
		return "every policy is content"
	}
	var list []string
	for line := range strings.SplitSeq(message, "\n") {
		code := reasonCode.FindStringSubmatch(line)
		if code == nil {
			continue
		}
		text := code[1]
		if policy := policyName.FindStringSubmatch(line); policy != nil {
			text += " (" + policy[1] + ")"
		}
		if !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return strings.Join(list, ", ")
}

func (t *teller) table() {
	const format = "%-34s %-8s  %-8s  %s\n"
	fmt.Fprintf(t.w, "\n"+format, "Pod", "Answer", "Expected", "Why the webhook says so")
	fmt.Fprintf(t.w, format, strings.Repeat("─", 34), strings.Repeat("─", 8), strings.Repeat("─", 8), strings.Repeat("─", 23))
	for _, r := range t.rows {
		expected := "yes"
		if r.allowed != r.pod.allowed {
			expected = "NO"
		}
		fmt.Fprintf(t.w, format, r.pod, word(r.allowed), expected, r.why)
	}
}
