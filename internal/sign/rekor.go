package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekorpb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/models"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

// answerMax bounds what is read of a log's answer, in bytes.
const answerMax = 10 << 20

// transparency makes the library's client of one log. The library would open its
// own connections; these clients use the transport that was handed in.
func (r reach) transparency(l Log) *sgsign.Rekor {
	o := &sgsign.RekorOptions{BaseURL: trim(l.URL), Version: uint32(l.Version)}
	if l.Version == RekorV1 {
		o.Client = rekorV1{r, trim(l.URL)}
	} else {
		o.ClientV2 = rekorV2{r, trim(l.URL)}
	}
	return sgsign.NewRekor(o)
}

// do sends JSON and returns the answer and its body.
func (r reach) do(ctx context.Context, method, url string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := r.client().Do(req)
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	switch {
	case err != nil:
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the answer of %s broke off: %w", req.URL.Host, err)
	case len(answer) > answerMax:
		return nil, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s answers with more than %d bytes", req.URL.Host, answerMax)
	}
	return resp, answer, nil
}

func refused(what string, resp *http.Response, body []byte) error {
	code := gatehouse.CodeUnavailable
	if resp.StatusCode >= 400 && resp.StatusCode < 500 {
		code = gatehouse.CodeDenied
	}
	return gatehouse.Errorf(code, "%s answers HTTP %d: %s", what, resp.StatusCode, clip(string(body)))
}

// rekorV2 is the write side of Rekor v2: POST /api/v2/log/entries answers 201
// with the entry and the proof that it is included.
type rekorV2 struct {
	reach
	base string
}

func (c rekorV2) Add(ctx context.Context, entry any) (*protorekor.TransparencyLogEntry, error) {
	record, ok := entry.(*rekorpb.HashedRekordRequestV002)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "an entry of type %T is not one of Rekor v2", entry)
	}
	body, err := protojson.Marshal(&rekorpb.CreateEntryRequest{Spec: &rekorpb.CreateEntryRequest_HashedRekordRequestV002{HashedRekordRequestV002: record}})
	if err != nil {
		return nil, err
	}
	resp, answer, err := c.do(ctx, http.MethodPost, c.base+"/api/v2/log/entries", body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated {
		return nil, refused("the log", resp, answer)
	}
	var tle protorekor.TransparencyLogEntry
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(answer, &tle); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log's answer cannot be read: %w", err)
	}
	if len(tle.CanonicalizedBody) == 0 || tle.GetInclusionProof().GetCheckpoint().GetEnvelope() == "" || len(tle.GetLogId().GetKeyId()) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log's entry is incomplete")
	}
	return &tle, nil
}

// rekorV1 is the write side of Rekor v1: POST /api/v1/log/entries answers 201
// with the entry by its UUID, or 409 with the place of an equal one.
type rekorV1 struct {
	reach
	base string
}

var _ sgsign.RekorClient = rekorV1{}

func (c rekorV1) CreateLogEntry(p *entries.CreateLogEntryParams, _ ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	ctx := p.Context
	if ctx == nil {
		ctx = context.Background()
	}
	body, err := json.Marshal(p.ProposedEntry)
	if err != nil {
		return nil, err
	}
	resp, answer, err := c.do(ctx, http.MethodPost, c.base+"/api/v1/log/entries", body)
	if err != nil {
		return nil, err
	}
	uuid := resp.Header.Get("ETag")
	switch resp.StatusCode {
	case http.StatusCreated:
	case http.StatusConflict: // it is there: signing again with a key that signs the same each time
		uuid = path.Base(resp.Header.Get("Location"))
		got, err := c.byUUID(ctx, uuid)
		if err != nil {
			return nil, err
		}
		return &entries.CreateLogEntryCreated{ETag: uuid, Payload: models.LogEntry{uuid: got}}, nil
	default:
		return nil, refused("the log", resp, answer)
	}
	one, err := oneEntry(answer)
	if err != nil {
		return nil, err
	}
	return &entries.CreateLogEntryCreated{ETag: uuid, Payload: models.LogEntry{uuid: one}}, nil
}

func (c rekorV1) GetLogEntryByUUID(p *entries.GetLogEntryByUUIDParams, _ ...entries.ClientOption) (*entries.GetLogEntryByUUIDOK, error) {
	ctx := p.Context
	if ctx == nil {
		ctx = context.Background()
	}
	one, err := c.byUUID(ctx, p.EntryUUID)
	if err != nil {
		return nil, err
	}
	return &entries.GetLogEntryByUUIDOK{Payload: models.LogEntry{p.EntryUUID: one}}, nil
}

func (c rekorV1) byUUID(ctx context.Context, uuid string) (models.LogEntryAnon, error) {
	for _, r := range uuid {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return models.LogEntryAnon{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log names an entry %q", clip(uuid))
		}
	}
	resp, answer, err := c.do(ctx, http.MethodGet, c.base+"/api/v1/log/entries/"+uuid, nil)
	if err != nil {
		return models.LogEntryAnon{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return models.LogEntryAnon{}, refused("the log", resp, answer)
	}
	return oneEntry(answer)
}

// oneEntry reads {UUID: entry}.
func oneEntry(answer []byte) (models.LogEntryAnon, error) {
	var all map[string]models.LogEntryAnon
	if err := json.Unmarshal(answer, &all); err != nil || len(all) != 1 {
		return models.LogEntryAnon{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log's answer is not one entry")
	}
	for _, e := range all { // the library follows these pointers without asking
		if e.Body == nil || e.IntegratedTime == nil || e.LogIndex == nil || e.LogID == nil || e.Verification == nil {
			break
		}
		p := e.Verification.InclusionProof
		if p == nil || p.Checkpoint == nil || p.LogIndex == nil || p.RootHash == nil || p.TreeSize == nil {
			break
		}
		return e, nil
	}
	return models.LogEntryAnon{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log's entry is incomplete")
}
