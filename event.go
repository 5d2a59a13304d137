package gatehouse

import "time"

// EventType names what happened. An event is written in the transaction of the
// change that it tells of, so that neither exists without the other.
type EventType string

const (
	EventPushed           EventType = "manifest.pushed"
	EventManifestDeleted  EventType = "manifest.deleted"
	EventTagMoved         EventType = "tag.moved"    // created or moved
	EventTagRestored      EventType = "tag.restored" // moved, or created, back to what it had been
	EventTagDeleted       EventType = "tag.deleted"
	EventReferrerAdded    EventType = "referrer.added"    // signature, attestation, SBOM …
	EventSignatureAdded   EventType = "signature.added"   // a signature or attestation that holds has arrived
	EventSignatureInvalid EventType = "signature.invalid" // one that does not
	EventImagePromoted    EventType = "image.promoted"
	EventProjectChanged   EventType = "project.changed"  // its settings
	EventBlobCorrupt      EventType = "blob.corrupt"     // found damaged or missing, and withheld
	EventBlobHealed       EventType = "blob.healed"      // whole again, without a push
	EventManifestCorrupt  EventType = "manifest.corrupt" // found damaged
	EventManifestHealed   EventType = "manifest.healed"
	EventIndexed          EventType = "image.indexed"
	EventFeedChanged      EventType = "feed.changed"
	EventVulnNew          EventType = "vulnerability.new"
	EventVulnFixed        EventType = "vulnerability.fixed"
	EventMalwareFound     EventType = "malware.found" // in a stored layer
	EventPolicyChanged    EventType = "policy.changed"
	EventExceptionChanged EventType = "exception.changed"
	EventDecisionDenied   EventType = "admission.denied"
	EventBreakGlass       EventType = "admission.break-glass" // a token was made, used or revoked
	EventRunningChanged   EventType = "running.changed"       // what runs in the cluster has another verdict
	EventSigstoreRotated  EventType = "sigstore.rotated"      // the private Sigstore has other keys
)

// Event is one row of the outbox.
type Event struct {
	Seq     int64 // position in the outbox, assigned on commit
	Type    EventType
	At      time.Time
	Actor   string
	Repo    Repo
	Tag     string
	Digest  Digest
	Payload []byte // JSON, its shape depends on Type
}
