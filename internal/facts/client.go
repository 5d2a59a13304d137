package facts

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Server is what a [Follower] asks. Answers are signed bytes that nobody has looked
// into yet. Errors: CodeConflict, the server has another history; CodeNotFound, it has
// no such image; CodeUnavailable, anything else, with detail UNREACHED where there was
// no answer at all.
type Server interface {
	// Changes asks what has changed after a position; after < 0: nothing, just where
	// the feed ends now.
	Changes(ctx context.Context, after int64, mark, nonce string) ([]byte, error)
	// Image asks about one image of a repository. Where its facts are those of the
	// version known, they do not travel again.
	Image(ctx context.Context, repo gatehouse.Repo, digest, known gatehouse.Digest, nonce string) ([]byte, error)
}

// Client is a [Server] over HTTP.
type Client struct {
	Base *url.URL
	// HTTP sends the requests; its transport is egress's, and adds the password.
	HTTP *http.Client
}

// Changes implements [Server].
func (c Client) Changes(ctx context.Context, after int64, mark, nonce string) ([]byte, error) {
	q := url.Values{"nonce": {nonce}}
	if after >= 0 {
		q.Set("after", strconv.FormatInt(after, 10))
		q.Set("mark", mark)
	}
	// base64 and the signature come to the payload.
	return c.get(ctx, "/api/v1/facts/changes", q, 2*pageSizeMax)
}

// Image implements [Server].
func (c Client) Image(ctx context.Context, repo gatehouse.Repo, digest, known gatehouse.Digest, nonce string) ([]byte, error) {
	q := url.Values{"digest": {string(digest)}, "repository": {string(repo)}, "nonce": {nonce}}
	if known != "" {
		q.Set("known", string(known))
	}
	b, err := c.get(ctx, "/api/v1/facts", q, 2*imageSizeMax)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Facts []json.RawMessage `json:"facts"`
	}
	if err := json.Unmarshal(b, &answer); err != nil || len(answer.Facts) != 1 {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer is not facts about one image")
	}
	return answer.Facts[0], nil
}

// unreached is the detail of errors that come from no server.
const unreached = "UNREACHED"

// refusalMax bounds what is read of an answer that is an error.
const refusalMax = 64 << 10

func (c Client) get(ctx context.Context, path string, q url.Values, max int64) ([]byte, error) {
	u := *c.Base
	u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't reach the server: %w", err).WithDetail(unreached)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	if int64(len(b)) > max {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer has more than %d bytes", max)
	}
	return b, nil
}

// refusal is what an answer says that has no facts. That something is not there, or is
// another, counts only in the server's own form: a proxy before a server that is down
// says such things, too.
func refusal(resp *http.Response) error {
	var problem struct {
		Detail, Hint string
		Code         gatehouse.Code
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, refusalMax))
	if errors.Join(err, json.Unmarshal(b, &problem)) != nil || problem.Detail == "" {
		problem.Detail = http.StatusText(resp.StatusCode)
	}
	code := gatehouse.CodeUnavailable
	if c := problem.Code; c == gatehouse.CodeNotFound && resp.StatusCode == http.StatusNotFound || c == gatehouse.CodeConflict && resp.StatusCode == http.StatusConflict {
		code = c
	}
	return gatehouse.Errorf(code, "the server answered %d: %.300s", resp.StatusCode, problem.Detail).WithHint("%.300s", problem.Hint)
}
