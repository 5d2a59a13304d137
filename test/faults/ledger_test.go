package faults

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

const (
	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	mediaTypeConfig   = "application/vnd.oci.image.config.v1+json"
	mediaTypeLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaTypeSBOM     = "application/vnd.example.sbom"
)

// presence is what is known of something that requests make and remove.
type presence int

const (
	absent presence = iota
	unsure          // a request about it had no answer
	there
)

func (p presence) String() string { return [...]string{"absent", "unsure", "there"}[p] }

// image is one manifest and what it needs.
type image struct {
	repo      string
	mediaType string
	body      []byte
	digest    string
	blobs     [][]byte // config and layers; only names are kept once it is pushed
	names     []string // their digests
	children  []*image
	subject   *image

	// Of the ledger, guarded by its mutex.
	state   presence
	held    bool // an index or a referrer names it, or may
	touched int  // the last round with a request about it
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func (i *image) descriptor() descriptor { return descriptor{i.mediaType, i.digest, len(i.body)} }

// newImage makes an image of a config and layers, or what hangs on a subject.
func newImage(repo string, subject *image, config []byte, layers ...[]byte) *image {
	doc := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType,omitempty"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
		Subject       *descriptor  `json:"subject,omitempty"`
	}{SchemaVersion: 2, MediaType: mediaTypeManifest, Config: descriptor{mediaTypeConfig, digestOf(config), len(config)}, Layers: []descriptor{}}
	i := &image{repo: repo, mediaType: mediaTypeManifest, subject: subject}
	i.add(config)
	for _, l := range layers {
		doc.Layers = append(doc.Layers, descriptor{mediaTypeLayer, digestOf(l), len(l)})
		i.add(l)
	}
	if subject != nil {
		d := subject.descriptor()
		doc.ArtifactType, doc.Subject = mediaTypeSBOM, &d
	}
	i.seal(doc)
	return i
}

// newIndex makes an image index.
func newIndex(repo string, children ...*image) *image {
	doc := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: mediaTypeIndex}
	i := &image{repo: repo, mediaType: mediaTypeIndex, children: children}
	for _, c := range children {
		doc.Manifests = append(doc.Manifests, c.descriptor())
	}
	i.seal(doc)
	return i
}

func (i *image) add(b []byte) {
	i.blobs, i.names = append(i.blobs, b), append(i.names, digestOf(b))
}

func (i *image) seal(doc any) {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	i.body, i.digest = b, digestOf(b)
}

func (i *image) key() string { return i.repo + "@" + i.digest }

// tag is one tag and what it may point at: one digest after an answer, more
// while an outcome is not known. The empty digest means that it does not exist.
type tag struct {
	repo, name string
	may        map[string]*image
	touched    int
}

// ledger is what the registry has promised. Pushers write an intent before they
// send a request and the promise when it was answered; what was never answered
// may have happened or not. One image, tag or blob belongs to one pusher.
type ledger struct {
	collects bool // a collector runs: what no tag leads to may go

	mu     sync.Mutex
	round  int
	images map[string]*image
	tags   map[string]*tag
	blobs  map[string]bool // repo@digest of acknowledged uploads
	fresh  []string        // of them, those of this round
}

func newLedger() *ledger {
	return &ledger{images: map[string]*image{}, tags: map[string]*tag{}, blobs: map[string]bool{}}
}

func (l *ledger) tag(repo, name string) *tag {
	k := repo + ":" + name
	t := l.tags[k]
	if t == nil {
		t = &tag{repo: repo, name: name, may: map[string]*image{"": nil}}
		l.tags[k] = t
	}
	t.touched = l.round
	return t
}

func (l *ledger) touch(i *image) {
	l.images[i.key()] = i
	i.touched = l.round
}

// putting is the intent to push i and to move a tag to it; no tag if empty.
func (l *ledger) putting(i *image, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touch(i)
	if i.state == absent {
		i.state = unsure
	}
	for _, c := range i.children {
		c.held = true
	}
	if i.subject != nil {
		i.subject.held = true
	}
	if name != "" {
		l.tag(i.repo, name).may[i.digest] = i
	}
}

// put is the promise that i is there and that the tag points at it.
func (l *ledger) put(i *image, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touch(i)
	before := l.roots()
	i.state, i.blobs = there, nil
	if name != "" {
		l.tag(i.repo, name).may = map[string]*image{i.digest: i}
	}
	for rooted := range l.roots() { // what a tag leads to again may have gone meanwhile
		if !before[rooted] && rooted != i && !slices.Contains(i.children, rooted) && rooted.state == there {
			rooted.state = unsure
		}
	}
}

// roots are the images that a tag leads to for certain; nil without a collector.
// The way ends at an image that may have gone: what hangs on a subject that is
// not there is not kept by another referrer of it, though that one has a tag.
func (l *ledger) roots() map[*image]bool {
	if !l.collects {
		return nil
	}
	hanging := map[*image][]*image{}
	for _, i := range l.images {
		if i.subject != nil && i.state == there {
			hanging[i.subject] = append(hanging[i.subject], i)
		}
	}
	roots := map[*image]bool{}
	var add func(*image)
	add = func(i *image) {
		if i == nil || i.state != there || roots[i] {
			return
		}
		roots[i] = true
		add(i.subject)
		for _, c := range append(i.children, hanging[i]...) {
			add(c)
		}
	}
	for _, t := range l.tags {
		if len(t.may) == 1 {
			for _, i := range t.may {
				add(i)
			}
		}
	}
	return roots
}

func (l *ledger) untagging(repo, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tag(repo, name).may[""] = nil
}

func (l *ledger) untagged(repo, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tag(repo, name).may = map[string]*image{"": nil}
}

// deleting is the intent to delete a manifest, with the tags that point at it.
func (l *ledger) deleting(i *image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touch(i)
	i.state = unsure
	for _, t := range l.tags {
		if t.repo == i.repo && t.may[i.digest] != nil {
			t.may[""], t.touched = nil, l.round
		}
	}
}

func (l *ledger) deleted(i *image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touch(i)
	i.state = absent
	for _, t := range l.tags {
		if t.repo == i.repo && t.may[i.digest] != nil {
			delete(t.may, i.digest)
			t.touched = l.round
		}
	}
}

// stored is the promise of a blob.
func (l *ledger) stored(repo, digest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := repo + "@" + digest; !l.blobs[k] {
		l.blobs[k] = true
		l.fresh = append(l.fresh, k)
	}
}

// mayDelete reports whether i can be deleted without tearing something else.
func (l *ledger) mayDelete(i *image) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return i.state == there && !i.held
}

// next begins a round.
func (l *ledger) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.round++
	l.fresh = nil
}

// count is how many manifests are there for certain.
func (l *ledger) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.images {
		if i.state == there {
			n++
		}
	}
	return n
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var count [there + 1]int
	for _, i := range l.images {
		count[i.state]++
	}
	return fmt.Sprintf("%d manifests acknowledged, %d without an answer, %d deleted; %d tags, %d blobs",
		count[there], count[unsure], count[absent], len(l.tags), len(l.blobs))
}
