package gatehouse

// StepKind is what a [Step] stands for.
type StepKind string

const (
	StepPolicy      StepKind = "policy"
	StepImage       StepKind = "image"       // that the policy speaks of
	StepAuthority   StepKind = "authority"   // whose word the policy asks for
	StepAttestation StepKind = "attestation" // of the authority above
	StepFacts       StepKind = "facts"       // findings, a configuration: what no authority says
	StepCandidate   StepKind = "candidate"   // something attached to the image
	StepCheck       StepKind = "check"
)

// StepResult is how a step came out. Its zero value says nothing and is shown as
// failed.
type StepResult string

const (
	StepPassed  StepResult = "passed"
	StepWarned  StepResult = "warned" // failed, in a policy that only warns
	StepFailed  StepResult = "failed"
	StepSkipped StepResult = "skipped" // the policy does not speak of this, or did not need to ask
)

// Step is one node of the tree that explains a decision: policy → image →
// authority → candidate → check. What it says was true when the decision was made.
type Step struct {
	Kind    StepKind   `json:"kind"`
	Name    string     `json:"name"`
	Result  StepResult `json:"result"`
	Code    string     `json:"code,omitempty"` // as in Reason, or as in Rejected
	Message string     `json:"message,omitempty"`
	Digest  Digest     `json:"digest,omitempty"` // of the image, of the candidate, of what was checked
	Steps   []Step     `json:"steps,omitempty"`
}
