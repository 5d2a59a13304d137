package sigstore

import (
	"context"
	"net/http"
	"time"

	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pbrekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

// Log is the transparency log behind [Rekor].
type Log interface {
	// AddAndWait adds an entry and waits until it is in a tree whose checkpoint is
	// signed; the same bytes again have the place that they have. CodeTooMany and
	// CodeUnavailable ask for another try.
	AddAndWait(ctx context.Context, entry []byte) (Included, error)
	// CheckpointAt returns the newest signed checkpoint and when it came out.
	// CodeNotFound: none yet.
	CheckpointAt(ctx context.Context) ([]byte, time.Time, error)
	// Tile returns the tile at a path of C2SP tlog-tiles, "tile/0/000".
	// CodeInvalid: it is no such path. CodeNotFound: there is no such tile.
	Tile(ctx context.Context, path string) ([]byte, error)
}

// Included is the proof that an entry is in a log.
type Included struct {
	Index      int64
	Size       int64 // of the tree
	Root       []byte
	Proof      [][]byte // from the leaf to the root
	Checkpoint []byte   // the signed note over the tree
	// LogID names the log with the key of the checkpoint, where that is not the one
	// of [RekorOptions]: a log may have got another key a moment ago.
	LogID []byte
	// Again says that the entry was in the log before it was added.
	Again bool
}

// Rekor is the HTTP API of a transparency log as Rekor v2 has it: entries are
// signatures, which are verified before they are accepted, and the log is read as
// tiles. It needs no login, as stock clients have none: what is accepted is
// bounded by size, by rate, by a budget, and by having a valid signature; of whom,
// where only those who are known may add.
type Rekor struct {
	*edge
	log                Log
	id                 []byte
	held               memory
	known              func(certificate, key []byte) bool
	knownOnly          bool
	friends, strangers *bounds
	added              func(known bool, bytes int)
	refused            func(reason string)
	zipped             *bounds
	checker            checker
	answered           protojson.MarshalOptions
}

// RekorOptions are what [NewRekor] needs. Log and LogID must be set.
type RekorOptions struct {
	Log   Log
	LogID []byte // 32 bytes, that name the log and its key in trusted roots; see tLogID
	Options

	// Budget bounds the entries of those who are known, and those of all others
	// besides.
	Budget Budget
	// Known reports whether a certificate (DER), or a key (PKIX) where that is nil,
	// is of somebody who is known here. nil: nobody is.
	Known     func(certificate, key []byte) bool
	KnownOnly bool // take no entry of others
	// Added is told of each entry that is new in the log, Refused why one is not let
	// in. Both may be nil.
	Added   func(known bool, bytes int)
	Refused func(reason string)
}

// NewRekor makes the API of a log. CodeInvalid: an option cannot be right.
func NewRekor(o RekorOptions) (*Rekor, error) {
	if o.Log == nil || len(o.LogID) != 32 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the API of a transparency log needs the log, and its id of 32 bytes")
	}
	check, err := newChecker()
	if err != nil {
		return nil, err
	}
	r := &Rekor{
		edge: newEdge(o.Options), log: o.Log, id: o.LogID, checker: check, answered: protojson.MarshalOptions{EmitUnpopulated: true},
		known: o.Known, knownOnly: o.KnownOnly, friends: o.Budget.bounds(), strangers: o.Budget.bounds(),
		added: o.Added, refused: o.Refused, zipped: zipBounds(),
	}
	if r.known == nil {
		r.known = func([]byte, []byte) bool { return false }
	}
	if r.added == nil {
		r.added = func(bool, int) {}
	}
	if r.refused == nil {
		r.refused = func(string) {}
	}
	return r, nil
}

// Paths of the API.
const (
	entriesPath = "/api/v2/log/entries"
	// LogPath is below which the log is read, as C2SP tlog-tiles has it.
	LogPath = "/log"
)

// Register adds the routes. The tiles are at /log and, for clients that look
// there, at /api/v2.
func (r *Rekor) Register(mux *http.ServeMux) {
	mux.HandleFunc(entriesPath, r.entries)
	for _, base := range []string{LogPath, "/api/v2"} {
		mux.HandleFunc("GET "+base+"/checkpoint", r.checkpoint)
		mux.HandleFunc("GET "+base+"/tile/{path...}", r.tile)
	}
}

// requestMax is the size of the largest request, in bytes: what Rekor allows. An
// envelope comes with its payload.
const requestMax = 4 << 20

// entries answers POST /api/v2/log/entries.
func (r *Rekor) entries(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	answer, err := r.create(w, req)
	if err != nil {
		r.fail(w, req, err)
	} else {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated) // no other status is taken for success
		_, _ = w.Write(answer)
	}
	r.observe(gatehouse.CodeOf(err), time.Since(start))
}

// read reads the entry of a request, which is held in memory until it is checked.
func (r *Rekor) read(w http.ResponseWriter, req *http.Request) (entry logEntry, err error) {
	size := req.ContentLength
	if size < 0 || size > requestMax {
		size = requestMax
	}
	give, err := r.held.take(r.addr(req), size)
	if err != nil {
		return entry, err
	}
	defer give()
	body, err := readBody(w, req, requestMax)
	if err != nil {
		return entry, err
	}
	return r.checker.entry(body)
}

func (r *Rekor) create(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	if err := r.admit(w, req, "entries"); err != nil {
		if gatehouse.CodeOf(err) == gatehouse.CodeTooMany {
			r.refused(RefusedRate)
		}
		return nil, err
	}
	entry, err := r.read(w, req)
	if err != nil {
		return nil, err
	}
	addr := r.addr(req)
	known, from, err := r.afford(addr, entry)
	if err != nil {
		return nil, err
	}
	in, err := r.log.AddAndWait(req.Context(), entry.body)
	switch {
	case in.Again || gatehouse.CodeOf(err) == gatehouse.CodeTooMany: // nothing was added
		from.give(addr, len(entry.body))
	case err == nil:
		r.added(known, len(entry.body))
	}
	if err != nil {
		return nil, err
	}
	id := r.id
	if len(in.LogID) > 0 {
		id = in.LogID
	}
	return r.answered.Marshal(&pbrekor.TransparencyLogEntry{
		LogIndex:    in.Index,
		LogId:       &pbcommon.LogId{KeyId: id},
		KindVersion: &pbrekor.KindVersion{Kind: entry.kind, Version: entry.version},
		InclusionProof: &pbrekor.InclusionProof{
			LogIndex: in.Index, RootHash: in.Root, TreeSize: in.Size, Hashes: in.Proof,
			Checkpoint: &pbrekor.Checkpoint{Envelope: string(in.Checkpoint)},
		},
		CanonicalizedBody: entry.body,
	})
}
