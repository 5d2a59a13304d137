// Package gatehouse holds the words of the house: the values that travel
// between its stages. It imports the standard library only and does no I/O,
// starts no goroutine and reads no clock.
//
// One binary decides which container images a Kubernetes cluster may run. Push
// an image; it is stored, indexed once, matched for ever, its signatures are
// verified, a decision is made, and the cluster admits it or does not:
//
//	                feed ──Advisory──┐
//	                                 ▼
//	push ─▶ registry ─▶ content ─▶ index ─Inventory─▶ match ─Finding──┐
//	                      │                                           ▼
//	                      └──Referrer──▶ verify ─Evidence──────▶ decide ─Decision─▶ admit (pod) / registry (pull)
//	       pipeline = all arrows, run as jobs on events: pushed · feed-changed · signed · policy-changed
//
// The root package is the arrows; every folder under internal is a box:
//
//	ref.go        Digest, Repo, Ref, Descriptor         names of content
//	content.go    Content, Blob, Upload, Manifest       a registry as a Go interface
//	inventory.go  Inventory, Package, Distro            what is inside        (index → match)
//	purl.go       PURL                                  a package's name elsewhere
//	space.go      LanguageSpace, SpaceOf                an ecosystem's name elsewhere
//	feed.go       Publication, KEV, EPSS                what a feed publishes (feed → match)
//	finding.go    Advisory, Range, Severity, Finding    what is wrong with it (feed, match → decide)
//	document.go   TypeOpenVEX, PredicateSPDX …          what hangs on an image
//	evidence.go   Need, Evidence, Identity, Rejected    who says so           (verify → decide)
//	pull.go       PullMode                              what a project asks of pulls
//	decision.go   Request, Verdict, Reason, Decision    may it run            (decide → admit)
//	event.go      Event                                 what happened
//	actor.go      Actor                                 who asks
//	errors.go     Error, Code                           what went wrong
package gatehouse
