package gatehouse

import (
	"encoding/json"
	"fmt"
	"time"
)

// Verdict is the answer. Its zero value denies, so that everything forgotten
// is a no.
type Verdict int

const (
	Deny  Verdict = iota
	Warn          // may run, with warnings
	Allow         // may run
)

func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Warn:
		return "warn"
	}
	return "deny"
}

// MarshalJSON writes the name.
func (v Verdict) MarshalJSON() ([]byte, error) { return json.Marshal(v.String()) }

// UnmarshalJSON reads the name; an unknown one is an error, and v denies.
func (v *Verdict) UnmarshalJSON(b []byte) error {
	*v = Deny
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	switch s {
	case "allow":
		*v = Allow
	case "warn":
		*v = Warn
	case "deny":
	default:
		return fmt.Errorf("verdict %q is unknown", clip(s))
	}
	return nil
}

// User is who asks the cluster.
type User struct {
	Name   string   `json:"username"`
	UID    string   `json:"uid,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// Extra is what the login says besides, by name: it may narrow what it is good for.
	Extra map[string][]string `json:"extra,omitempty"`
}

// Kind is a Kubernetes group, version and kind.
type ObjectKind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// ObjectResource is a Kubernetes group, version and resource ("pods").
type ObjectResource struct {
	Group    string `json:"group"`
	Version  string `json:"version"`
	Resource string `json:"resource"`
}

// Request is one admission or one pull, with every fact that the policies
// asked for. A policy sees nothing else. A zero field is not known: a policy that
// cannot judge without it denies.
type Request struct {
	UID         string
	Kind        ObjectKind
	Resource    ObjectResource
	SubResource string // "ephemeralcontainers", "status"; empty: the object itself
	Operation   string // CREATE, UPDATE, DELETE, CONNECT
	DryRun      bool   // nothing will be stored
	Name        string
	Namespace   string
	User        User
	Object      []byte // JSON, as it would be stored; nil on DELETE
	OldObject   []byte // JSON, before; nil on CREATE
	// Review is the request of the AdmissionReview as the API server wrote it, JSON.
	// Object and the other fields are taken from it.
	Review []byte
	// NamespaceObject is the Namespace that the object is in, JSON; nil: unknown.
	NamespaceObject []byte
	// Inventory is what of the cluster policies may look up; nil = unknown.
	Inventory *ClusterInventory
	// Mutated: nothing changes the object any more. A Pod that names by a tag only
	// what a policy judges by digest is denied then: the tag may move.
	Mutated bool
	// Templates are the paths at which objects of this kind keep Pod templates, Pod
	// specs or images, beside those that are known (decide/workload has the grammar).
	Templates []string
	Images    []ImageFacts
	FeedAt    time.Time // of the advisory generation behind Findings; zero = none
	Now       time.Time
}

// ClusterInventory is a snapshot of those objects of a cluster that policies look up
// beside the one that they judge. Nothing of it changes once it is in use; a later
// snapshot shares the objects that stayed the same.
type ClusterInventory struct {
	// Kinds are those whose objects are all there.
	Kinds   []ObjectKind
	Objects []*ClusterObject
}

// ClusterObject is one object of a cluster.
type ClusterObject struct {
	Kind      ObjectKind
	Namespace string // empty = the object belongs to the whole cluster
	Name      string
	Object    []byte // JSON
}

// ImageFacts is what is known of one image of a request.
type ImageFacts struct {
	Written string // as the object has it
	Field   string // "spec.containers[0].image"
	// Also has the reference by the other names of its registry, if it has any: what a
	// policy refuses by one name it must refuse by all of them. Decide sets it.
	Also  []string
	Image Ref // parsed; Digest is set once it has been resolved
	// Unchanged: an update leaves the image and what it runs in as they were. Only
	// policies that judge more than images look at it again.
	Unchanged bool
	// TagFixed: the tag names Image.Digest, never named another one and cannot come to,
	// since it is immutable in our own registry. False: it can, or that is not known.
	TagFixed bool
	// AsOf is when the oldest of these facts was found out, where they are not of now
	// because what they come from does not answer. Zero: they are of now.
	AsOf time.Time
	// Inventory and Findings are set when a policy asked for findings and the
	// image has been indexed.
	Inventory *Inventory
	Findings  []Finding
	// Complete: the inventory is whole and the advisories cover its distro and
	// ecosystems. Findings of an image that is not Complete prove nothing.
	Complete   bool
	Incomplete []string
	// Partial says, by kind, why findings of that kind prove nothing although the
	// image is Complete: its files have not been looked at for malware yet.
	Partial map[Kind][]string
	// Overlays lists what lies over the vulnerabilities: OverlayKEV, OverlayEPSS.
	// That none is known to be exploited proves nothing without the first.
	Overlays []string
	Evidence []Evidence
	Rejected []Rejected
	Config   []byte
	// Platforms are the configurations by OS/ARCHITECTURE[/VARIANT] of every image
	// that the reference stands for: one, or all that an index lists.
	Platforms map[string][]byte
	// Builds are what it is built of: one image, or each that an index lists.
	Builds []ImageBuild
	// Added is what signed SBOMs name beside our own index, one per document.
	Added []AddedFindings
	// Failed says which needs could not be answered, by Need.Name. A policy
	// whose need failed denies.
	Failed map[string]*Error
}

// ImageBuild is what one image is built of.
type ImageBuild struct {
	Digest Digest
	Layers []Digest // diffIDs as they were computed, lowest first
	// Bases are the names, HOST/REPOSITORY@DIGEST, of stored images whose layers are the
	// lowest of these, or all of them.
	Bases []string
}

// What is known of vulnerabilities beside advisories.
const (
	OverlayKEV  = "kev"
	OverlayEPSS = "epss"
)

// AddedFindings are what is wrong with the packages of one signed SBOM. They
// are added to the findings of our own index and never replace any.
type AddedFindings struct {
	Need     string // that asked for it
	Artifact Digest // the manifest that carried the SBOM
	Packages int    // that it names
	Distro   Distro // that it names
	Findings []Finding
	// Incomplete says what of the SBOM could not be judged.
	Incomplete []string
}

// Reason explains one step of a decision.
type Reason struct {
	Verdict Verdict `json:"verdict"`
	Code    string  `json:"code"`   // stable, for machines: "signature-missing"
	Policy  string  `json:"policy"` // which policy said so; empty = the decision itself
	// Authority is whose word counts or is missing, where the policy asks for one; the
	// tree of the decision shows it.
	Authority string   `json:"-"`
	Image     string   `json:"image,omitempty"`
	Field     string   `json:"field,omitempty"`
	Message   string   `json:"message"`        // why
	Hint      string   `json:"hint,omitempty"` // what would help
	Evidence  []Digest `json:"evidence,omitempty"`
}

// Decision is the answer to one Request.
type Decision struct {
	ID       string    `json:"id"`
	Subject  Digest    `json:"subject,omitempty"` // digest of the single image, or of the object
	Verdict  Verdict   `json:"verdict"`
	Reasons  []Reason  `json:"reasons"`
	Policies Digest    `json:"policies"` // of the policy set that judged
	At       time.Time `json:"at"`
	// Tree tells how each policy came to its reasons, those that object first. It is
	// no part of what the ID is made of.
	Tree []Step `json:"tree,omitempty"`
}
