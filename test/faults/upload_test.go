package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// uploadMode is how a blob travels.
type uploadMode int

const (
	whole    uploadMode = iota // POST with all bytes
	postPut                    // POST, PUT with all bytes
	streamed                   // POST, PATCH of unknown length, PUT
	chunked                    // POST, PATCHes with Content-Range, PUT
	uploadModes
)

// upload is one blob on its way. It can be continued after any loss, through any
// replica: what the server has promised is kept here.
type upload struct {
	c      *client
	repo   string
	digest string
	data   []byte
	mode   uploadMode
	chunk  int64 // bytes
	brief  bool  // a collector may take the blob again before its manifest comes

	location  string // of the session; empty: none yet
	promised  int64  // bytes that an answer has acknowledged
	sent      int64  // bytes that may have arrived
	finishing bool   // the last PUT was sent
	doubt     bool   // an answer was lost, and nobody has asked since
	disturbed bool   // an answer was lost at any time
	late      bool   // that of a PUT: a replica that dies may leave a commit on its way to the database
	done      bool
}

// errBroken is a promise that was not kept.
type errBroken struct{ what string }

func (e errBroken) Error() string { return "BROKEN PROMISE: " + e.what }

func broken(format string, args ...any) error { return errBroken{fmt.Sprintf(format, args...)} }

func newUpload(c *client, repo string, data []byte, random *rand.Rand) *upload {
	u := &upload{c: c, repo: repo, data: data, digest: digestOf(data), mode: uploadMode(random.IntN(int(uploadModes)))}
	u.chunk = int64(len(data)/(1+random.IntN(4))) + 2
	return u
}

// advance does the next step. Call it until done; after an error that is lost it
// may be called again.
func (u *upload) advance(ctx context.Context) (err error) {
	defer func() {
		switch {
		case lost(err):
			u.doubt, u.disturbed, u.late = true, true, u.late || u.finishing
		case u.late && refused(err, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"):
			u.doubt, err = true, nil // the PUT without an answer was carried out after all
		case u.disturbed && refused(err, http.StatusRequestedRangeNotSatisfiable, ""):
			u.doubt, err = true, nil // so was the PATCH
		}
	}()
	switch {
	case u.mode == whole:
		_, err := u.c.do(ctx, call{method: "POST", path: "/v2/" + u.repo + "/blobs/uploads/?digest=" + u.digest,
			header: octets, body: u.data})
		u.done = err == nil
		return err
	case u.location == "":
		return u.begin(ctx)
	case u.doubt:
		return u.ask(ctx)
	case u.mode != postPut && u.promised < int64(len(u.data)):
		return u.send(ctx)
	}
	return u.finish(ctx)
}

var octets = map[string]string{"Content-Type": "application/octet-stream"}

func (u *upload) begin(ctx context.Context) error {
	a, err := u.c.do(ctx, call{method: "POST", path: "/v2/" + u.repo + "/blobs/uploads/", body: []byte{}})
	if err != nil {
		return err
	}
	u.doubt = false // a session that nobody was told of is no promise
	return u.session(a)
}

func (u *upload) session(a answer) error {
	u.location = a.header.Get("Location")
	if !strings.HasPrefix(u.location, "/v2/"+u.repo+"/blobs/uploads/") {
		return broken("the Location of an upload is %q", u.location)
	}
	return nil
}

// ask finds out where a session stands after an answer was lost.
func (u *upload) ask(ctx context.Context) error {
	a, err := u.c.do(ctx, call{method: "GET", path: u.location})
	if refused(err, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN") {
		return u.ended(ctx)
	}
	if err != nil {
		return err
	}
	at, err := uploadOffset(a.header)
	if err != nil {
		return err
	}
	if at < u.promised || at > u.sent {
		return broken("upload %s of %s stands at byte %d: %d were acknowledged, %d sent", u.location, u.digest, at, u.promised, u.sent)
	}
	u.promised, u.doubt = at, false
	return nil
}

// ended: a session may go only when its blob has come.
func (u *upload) ended(ctx context.Context) error {
	if !u.finishing {
		return broken("the upload session %s of %s is gone", u.location, u.digest)
	}
	err := u.c.blob(ctx, u.repo, u.digest)
	if u.brief && refused(err, http.StatusNotFound, "") {
		u.done = true
		return nil
	}
	if refused(err, http.StatusNotFound, "") {
		return broken("the upload session %s is gone and blob %s has not come", u.location, u.digest)
	}
	u.done = err == nil
	return err
}

func (u *upload) send(ctx context.Context) error {
	end := int64(len(u.data))
	in := call{method: "PATCH", path: u.location, header: map[string]string{"Content-Type": octets["Content-Type"]}, streamed: u.mode == streamed}
	if u.mode == chunked {
		end = min(end, u.promised+u.chunk)
	}
	if u.mode == chunked || u.disturbed { // what was lost may come late: say where these belong
		in.header["Content-Range"] = strconv.FormatInt(u.promised, 10) + "-" + strconv.FormatInt(end-1, 10)
	}
	in.body = u.data[u.promised:end]
	u.sent = max(u.sent, end)
	a, err := u.c.do(ctx, in)
	if err != nil {
		return err
	}
	at, err := uploadOffset(a.header)
	if err != nil {
		return err
	}
	if at != end {
		return broken("a PATCH up to byte %d was acknowledged up to %d", end, at)
	}
	u.promised = at
	return u.session(a)
}

func (u *upload) finish(ctx context.Context) error {
	u.finishing = true
	u.sent = int64(len(u.data))
	in := call{method: "PUT", path: u.location + "?digest=" + u.digest, header: octets, body: []byte{}}
	if u.promised < u.sent {
		in.body = u.data[u.promised:]
		if u.disturbed {
			in.header = map[string]string{"Content-Type": octets["Content-Type"],
				"Content-Range": strconv.FormatInt(u.promised, 10) + "-" + strconv.FormatInt(u.sent-1, 10)}
		}
	}
	a, err := u.c.do(ctx, in)
	if err != nil {
		return err
	}
	if got := a.header.Get("Docker-Content-Digest"); got != u.digest {
		return broken("blob %s was acknowledged as %q", u.digest, got)
	}
	u.done = true
	return nil
}
