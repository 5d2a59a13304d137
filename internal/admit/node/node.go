// Package node is what runs on the machines of a cluster: a verifier that containerd
// asks before it pulls an image, a credential provider that the kubelet asks, and a
// relay that an API server's ImagePolicyWebhook asks. They ask a Gatehouse server, and
// let through by themselves only what a static list names: without it a machine could
// not start while Gatehouse, which runs on it, is down. Whatever fails denies.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
)

const (
	answerMax      = 1 << 20 // bytes of the server's answer
	timeoutDefault = 8 * time.Second
	timeoutMax     = 30 * time.Second
)

// Asker asks a server about images. The zero Asker reaches none, and denies what is
// not on its list.
type Asker struct {
	Server  *url.URL     // base of the admission listener
	Client  *http.Client // that trusts the server's CA
	Always  admit.Always
	Timeout time.Duration // for one question; 0: 8 s, 30 s at most
}

// Review answers whether images may run in a namespace ("": not known). It always
// answers: where the server does not, that is a no.
func (a *Asker) Review(ctx context.Context, review admit.ImageReview) admit.ImageReviewStatus {
	done, left, err := a.Always.Unasked(review)
	if err != nil {
		return deny(err)
	}
	if done != nil {
		return *done
	}
	status, err := a.ask(ctx, admit.NewImageReview(review.Spec.Namespace, left...))
	if err != nil {
		return deny(err)
	}
	return status
}

func deny(err error) admit.ImageReviewStatus {
	reason := err.Error()
	if hint := gatehouse.HintOf(err); hint != "" {
		reason += "; hint: " + hint
	}
	return admit.ImageReviewStatus{Reason: reason}
}

func (a *Asker) ask(ctx context.Context, review admit.ImageReview) (status admit.ImageReviewStatus, err error) {
	if a.Server == nil || a.Client == nil {
		return status, gatehouse.Errorf(gatehouse.CodeUnavailable, "no server is named that could be asked").WithHint("set server in the node's configuration")
	}
	timeout := a.Timeout
	if timeout <= 0 {
		timeout = timeoutDefault
	}
	timeout = min(timeout, timeoutMax)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := json.Marshal(review)
	if err != nil {
		return status, err
	}
	u := *a.Server
	u.Path = strings.TrimSuffix(u.Path, "/") + "/image-review"
	u.RawQuery = url.Values{"timeout": {timeout.String()}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return status, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.Client.Do(req)
	if err != nil {
		return status, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't ask Gatehouse: %w", err).
			WithHint("what a node needs while Gatehouse is down belongs on the list always.digests of its configuration")
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMax+1))
	if err != nil || len(answer) > answerMax {
		return status, gatehouse.Errorf(gatehouse.CodeUnavailable, "the answer of Gatehouse broke off or is too large")
	}
	var out admit.ImageReview
	err = admit.Exactly(answer, &out)
	if err != nil || res.StatusCode != http.StatusOK || out.Kind != "ImageReview" || out.APIVersion != admit.ImageReviewVersion || out.Status == nil {
		return status, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s answered %s and no ImageReview", a.Server.Host, res.Status).
			WithHint("server is the URL of --admission-listen, not that of the registry")
	}
	return *out.Status, nil
}

// Relay answers the ImagePolicyWebhook of an API server on the same machine: what is
// on the list by itself, the rest with the server's word.
type Relay struct {
	// Asker makes what asks the server. It is called again while it fails: a machine
	// that starts may have this before it has the files that it needs. What it returns
	// beside an error lets through what its list names.
	Asker func() (*Asker, error)

	mu  sync.Mutex
	ask *Asker // made without an error; guarded by mu
}

// asker returns what asks, and why that is not all of it.
func (r *Relay) asker() (*Asker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ask != nil {
		return r.ask, nil
	}
	ask, err := r.Asker()
	if err == nil {
		r.ask = ask
	}
	return ask, err
}

// relayBodyMax bounds a question, in bytes.
const relayBodyMax = 4 << 20

// ServeHTTP implements http.Handler, at whatever path.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, relayBodyMax))
	var review admit.ImageReview
	if err == nil {
		err = admit.Exactly(body, &review)
	}
	var status admit.ImageReviewStatus
	if err != nil {
		status = deny(gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not an ImageReview"))
	} else {
		ask, broken := r.asker()
		status = ask.Review(req.Context(), review)
		if !status.Allowed && broken != nil {
			status = deny(broken)
		}
	}
	b, err := json.Marshal(admit.Answered(status))
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client is gone; nothing is left to do
}

// descriptorMax bounds what containerd hands over, in bytes.
const descriptorMax = 1 << 20

// Verify answers containerd about an image that it is about to pull (the plugin
// io.containerd.image-verifier.v1.bindir): name as it is asked for, digest that it has
// now, and a descriptor of it, which has to be about the same.
func (a *Asker) Verify(ctx context.Context, name, digest, mediaType string, descriptor io.Reader) admit.ImageReviewStatus {
	want, err := gatehouse.ParseDigest(digest)
	if err != nil {
		return deny(err)
	}
	ref, err := gatehouse.ParseRef(name)
	if err != nil {
		return deny(err)
	}
	if ref.Digest != "" && ref.Digest != want {
		return deny(gatehouse.Errorf(gatehouse.CodeInvalid, "the name says %s and the digest is %s", ref.Digest, want))
	}
	if err := described(want, mediaType, descriptor); err != nil {
		return deny(err)
	}
	image := name
	if ref.Digest == "" {
		image += "@" + string(want)
	}
	return a.Review(ctx, admit.NewImageReview("", image))
}

// described checks a descriptor. One of a type that is not known says nothing.
func described(want gatehouse.Digest, mediaType string, in io.Reader) error {
	if mediaType != "application/vnd.oci.descriptor.v1+json" || in == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(in, descriptorMax+1))
	if err != nil || len(b) > descriptorMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the descriptor cannot be read")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	var d struct {
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the descriptor is not JSON: %w", err)
	}
	if d.Digest != string(want) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the descriptor is of %.100q, not of %s", d.Digest, want)
	}
	return nil
}
