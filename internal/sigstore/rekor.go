package sigstore

import (
	"cmp"
	"context"
	"log/slog"
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
}

// Rekor is the HTTP API of a transparency log as Rekor v2 has it: entries are
// signatures, which are verified before they are accepted, and the log is read as
// tiles. It needs no login, as stock clients have none: what is accepted is
// bounded by size, by rate, and by having a valid signature.
type Rekor struct {
	log      Log
	id       []byte
	logger   *slog.Logger
	limit    limiter
	held     budget
	addr     func(*http.Request) string
	observe  func(kind string, code gatehouse.Code, took time.Duration)
	checker  checker
	answered protojson.MarshalOptions
}

// RekorOptions are what [NewRekor] needs. Log and LogID must be set.
type RekorOptions struct {
	Log   Log
	LogID []byte // 32 bytes, that name the log and its key in trusted roots; see tlog.LogID

	// PerSecond and Burst bound the entries of one address; 50 and 500 by default.
	PerSecond float64
	Burst     int
	// Addr tells who asks, for that bound; the address of the connection by default.
	Addr func(*http.Request) string
	// Observe is told of each entry: its kind, why it was refused ("" = it was not)
	// and how long it took. It may be nil.
	Observe func(kind string, code gatehouse.Code, took time.Duration)
	Logger  *slog.Logger // discarded by default
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
		log: o.Log, id: o.LogID, logger: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), addr: o.Addr, observe: o.Observe, checker: check,
		limit:    limiter{perSecond: cmp.Or(o.PerSecond, 50), burst: float64(cmp.Or(o.Burst, 500))},
		answered: protojson.MarshalOptions{EmitUnpopulated: true},
	}
	if r.addr == nil {
		r.addr = connectionAddr
	}
	if r.observe == nil {
		r.observe = func(string, gatehouse.Code, time.Duration) {}
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
	start, kind := time.Now(), ""
	answer, err := r.create(w, req, &kind)
	if err != nil {
		r.fail(w, req, err)
	} else {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated) // no other status is taken for success
		_, _ = w.Write(answer)
	}
	r.observe(kind, gatehouse.CodeOf(err), time.Since(start))
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

func (r *Rekor) create(w http.ResponseWriter, req *http.Request, kind *string) ([]byte, error) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, errMethod
	}
	if wait := r.limit.take(r.addr(req), time.Now()); wait > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too many entries from this address").WithHint("try again in a second")
	}
	entry, err := r.read(w, req)
	*kind = entry.kind
	if err != nil {
		return nil, err
	}
	in, err := r.log.AddAndWait(req.Context(), entry.body)
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
