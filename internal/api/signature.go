package api

import (
	"context"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// Signatures answers who signed stored images. Results are JSON documents.
type Signatures interface {
	// Signatures tells who signed an image of a repository, when, and whether that is
	// what its project asks for.
	Signatures(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (any, error)
}

// imageSignatures answers for the repository that is named, or else one that holds
// the image and that actor may pull from: signatures lie in a repository.
func (h handler) imageSignatures(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	repo, digest, err := h.imageIn(r, actor)
	if err != nil {
		return err
	}
	v, err := h.Signatures.Signatures(r.Context(), repo, digest)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// imageIn is visible with the repository of the query, where there is one.
func (h handler) imageIn(r *http.Request, actor gatehouse.Actor) (gatehouse.Repo, gatehouse.Digest, error) {
	name := r.URL.Query().Get("repository")
	if name == "" {
		return h.visible(r, actor)
	}
	repo, err := gatehouse.ParseRepo(name)
	if err != nil {
		return "", "", err
	}
	if err := h.may(r.Context(), actor, "pull", repo); err != nil {
		return "", "", err
	}
	digest, err := gatehouse.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return "", "", err
	}
	repos, err := h.Findings.Places(r.Context(), digest, placesMax)
	if err != nil {
		return "", "", err
	}
	for _, place := range repos {
		if place == repo {
			return repo, digest, nil
		}
	}
	return "", "", gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s holds no image %s", repo, digest)
}
