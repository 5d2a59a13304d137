package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const (
	// predicateBreakGlass is the type of the statements about tokens: that one was
	// made, and that it was used.
	predicateBreakGlass = "https://gatehouse.dev/attestation/break-glass/v1"
	// keyBreakGlass is the server's key for them.
	keyBreakGlass = "break-glass"
	// breakGlassAnnotation is where an object carries tokens, divided by blanks. By
	// itself it is worth nothing.
	breakGlassAnnotation = "gatehouse.dev/break-glass"

	breakGlassPrefix  = "gbg_" // of tokens, for those who look for leaked ones
	breakGlassTTL     = time.Hour
	breakGlassTTLMin  = time.Minute
	breakGlassTTLMax  = 24 * time.Hour
	breakGlassKept    = 90 * 24 * time.Hour // after they have ended
	breakGlassReason  = 2000                // bytes
	breakGlassNameMax = 253                 // bytes of a requester's name
)

// clusterAccess answers what somebody may do in the cluster.
type clusterAccess interface {
	// CanBreakGlass asks, by a SubjectAccessReview, whether user may create
	// breakglasses.gatehouse.dev in the namespace.
	CanBreakGlass(ctx context.Context, user gatehouse.User, namespace string) (bool, error)
}

// glass makes and uses tokens that let an image run in spite of what the policies
// say. It implements api.BreakGlass.
type glass struct {
	*Server
	// access is the cluster; nil where the server is connected to none: then only
	// administrators may make tokens, and whoever a token names may use it.
	access clusterAccess
}

// breakGlassStatement is the predicate of a statement. docs/break-glass.md has it.
type breakGlassStatement struct {
	Act        string           `json:"act"` // "create", "use"
	Namespace  string           `json:"namespace"`
	Digest     gatehouse.Digest `json:"digest"`
	Requester  string           `json:"requester"`
	Everything bool             `json:"everything"`
	Reason     string           `json:"reason"`
	By         string           `json:"by"`
	ExpiresAt  time.Time        `json:"expiresAt"`
	Token      int64            `json:"token,omitempty"`    // of a use: its number
	Decision   string           `json:"decision,omitempty"` // of a use
	Object     string           `json:"object,omitempty"`   // of a use: its kind, name and uid
}

// breakGlassDoc is one token in answers. Secret is there once, when it is made.
type breakGlassDoc struct {
	ID         int64            `json:"id"`
	Secret     string           `json:"token,omitempty"`
	State      string           `json:"state"` // open, used, revoked, expired
	Namespace  string           `json:"namespace"`
	Digest     gatehouse.Digest `json:"digest"`
	Requester  string           `json:"requester"`
	Everything bool             `json:"everything"`
	Reason     string           `json:"reason"`
	CreatedBy  string           `json:"createdBy"`
	CreatedAt  time.Time        `json:"createdAt"`
	ExpiresAt  time.Time        `json:"expiresAt"`
	RevokedAt  time.Time        `json:"revokedAt,omitzero"`
	UsedAt     time.Time        `json:"usedAt,omitzero"`
	Decision   string           `json:"decision,omitempty"`
}

func docOfGlass(b db.BreakGlass, now time.Time) breakGlassDoc {
	d := breakGlassDoc{
		ID: b.ID, State: "open", Namespace: b.Namespace, Digest: b.Digest, Requester: b.Requester, Everything: b.Everything, Reason: b.Reason,
		CreatedBy: b.CreatedBy, CreatedAt: b.CreatedAt, ExpiresAt: b.ExpiresAt, RevokedAt: b.RevokedAt, UsedAt: b.UsedAt, Decision: b.Decision,
	}
	switch {
	case !b.UsedAt.IsZero():
		d.State = "used"
	case !b.RevokedAt.IsZero():
		d.State = "revoked"
	case !now.Before(b.ExpiresAt):
		d.State = "expired"
	}
	return d
}

// namespacePattern is the grammar of a namespace's name (RFC 1123).
var namespacePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// checkGlass refuses tokens that say too little, or too much.
func checkGlass(in *api.BreakGlassRequest) error {
	invalid := func(format string, args ...any) *gatehouse.Error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
	}
	in.Reason = strings.TrimSpace(in.Reason)
	if in.TTL == 0 {
		in.TTL = breakGlassTTL
	}
	switch {
	case !namespacePattern.MatchString(in.Namespace):
		return invalid("namespace %.100q is not the name of one", in.Namespace).WithHint("a token holds in one namespace")
	case in.Requester == "" || len(in.Requester) > breakGlassNameMax || strings.ContainsFunc(in.Requester, func(r rune) bool { return r < ' ' }):
		return invalid("requester %.100q is not the name of a user", in.Requester).
			WithHint("the user of the cluster who will create the object, for example ann@example.com or system:serviceaccount:shop:deployer")
	case in.Reason == "":
		return invalid("the token has no reason").WithHint("say why the image has to run in spite of the policies")
	case len(in.Reason) > breakGlassReason:
		return invalid("the reason has %d bytes, %d at most", len(in.Reason), breakGlassReason)
	case in.TTL < breakGlassTTLMin || in.TTL > breakGlassTTLMax:
		return invalid("the token would hold for %s", in.TTL).WithHint("%s at least, %s at most", breakGlassTTLMin, breakGlassTTLMax)
	}
	_, err := gatehouse.ParseDigest(string(in.Digest))
	return err
}

// Create implements api.BreakGlass.
func (g *glass) Create(ctx context.Context, actor gatehouse.Actor, in api.BreakGlassRequest) (any, error) {
	if err := checkGlass(&in); err != nil {
		return nil, err
	}
	if err := g.mayCreate(ctx, actor, in); err != nil {
		return nil, err
	}
	row := db.BreakGlass{Namespace: in.Namespace, Digest: in.Digest, Requester: in.Requester, Everything: in.Everything, Reason: in.Reason}
	said := breakGlassStatement{
		Act: "create", Namespace: in.Namespace, Digest: in.Digest, Requester: in.Requester, Everything: in.Everything, Reason: in.Reason,
		By: actor.Name, ExpiresAt: time.Now().Add(in.TTL).UTC().Truncate(time.Second),
	}
	signed, proof, err := g.state(ctx, said)
	if err != nil {
		return nil, err
	}
	secret := breakGlassPrefix + rand.Text()
	err = g.db.Write(ctx, func(tx *db.Tx) error {
		made, err := tx.AddBreakGlass(ctx, actor, gatehouse.DigestOf([]byte(secret)), row, in.TTL, proof)
		if err != nil {
			return err
		}
		row = made
		return g.noteStatement(ctx, tx, keyBreakGlass, signed)
	})
	if err != nil {
		return nil, err
	}
	g.metrics.breakGlass.WithLabelValues("created").Inc()
	g.log.WarnContext(ctx, "break-glass create", "token", row.ID, "namespace", row.Namespace, "digest", row.Digest, "requester", row.Requester, "actor", actor.Name, "reason", row.Reason)
	doc := docOfGlass(row, row.CreatedAt)
	doc.Secret = secret
	return doc, nil
}

// mayCreate lets administrators make tokens, and users of the cluster, for
// themselves, who may do so there.
func (g *glass) mayCreate(ctx context.Context, actor gatehouse.Actor, in api.BreakGlassRequest) error {
	if actor.Admin {
		return nil
	}
	denied := gatehouse.Errorf(gatehouse.CodeDenied, "%s may not make break-glass tokens", actor.Name)
	// Only a name that the cluster itself vouches for is one that it can be asked about.
	if g.access == nil || actor.Source != "kubernetes" {
		return denied.WithHint("an administrator of this server can")
	}
	if in.Requester != actor.Name {
		return denied.WithHint("not for %s: only for yourself", in.Requester)
	}
	ok, err := g.access.CanBreakGlass(ctx, gatehouse.User{Name: actor.Name, Groups: actor.Groups}, in.Namespace)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the cluster was asked whether %s may, and did not answer: %w", actor.Name, err)
	}
	if !ok {
		return denied.WithHint("the cluster has to allow create breakglasses.gatehouse.dev in namespace %s", in.Namespace)
	}
	return nil
}

// state signs a statement about a token. proof is the bundle, for the audit record.
func (g *glass) state(ctx context.Context, said breakGlassStatement) (signed sign.Attachment, proof json.RawMessage, err error) {
	const size = 2 // the image need not be here; nothing is attached to it
	signed, err = g.keys.Attest(ctx, keyBreakGlass, sign.Image{
		Ref: gatehouse.Ref{Registry: "gatehouse.invalid", Repo: "break-glass", Digest: said.Digest}, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: size,
	}, predicateBreakGlass, said, sign.Options{Now: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return signed, nil, err
	}
	return signed, json.RawMessage(signed.Blobs[len(signed.Blobs)-1]), nil
}

// List implements api.BreakGlass.
func (g *glass) List(ctx context.Context, before int64, n int) (any, error) {
	var rows []db.BreakGlass
	var now time.Time
	err := g.db.Get(ctx, func(tx *db.Tx) (err error) {
		now = tx.Now()
		rows, err = tx.BreakGlasses(ctx, before, n)
		return err
	})
	out := struct {
		Tokens []breakGlassDoc `json:"tokens"`
		Next   int64           `json:"next,omitempty"` // before, to go on
	}{Tokens: []breakGlassDoc{}}
	for _, row := range rows {
		out.Tokens = append(out.Tokens, docOfGlass(row, now))
	}
	if len(rows) == n && n > 0 {
		out.Next = rows[n-1].ID
	}
	return out, err
}

// Revoke implements api.BreakGlass.
func (g *glass) Revoke(ctx context.Context, actor gatehouse.Actor, id int64) (any, error) {
	var row db.BreakGlass
	var now time.Time
	err := g.db.Write(ctx, func(tx *db.Tx) (err error) {
		now = tx.Now()
		row, err = tx.RevokeBreakGlass(ctx, actor, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return docOfGlass(row, now), nil
}

// PublicKey implements api.BreakGlass.
func (g *glass) PublicKey(ctx context.Context) ([]byte, error) {
	return g.keys.Public(ctx, keyBreakGlass)
}

// tokensMax bounds the tokens of one object.
const tokensMax = 10

// carried reads the tokens that an object carries, and its uid.
func carried(object []byte) (tokens []string, uid string, err error) {
	if !strings.Contains(string(object), breakGlassAnnotation) {
		return nil, "", nil
	}
	var obj struct {
		Metadata struct {
			UID         string            `json:"uid"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(object, &obj); err != nil {
		return nil, "", err
	}
	tokens = strings.Fields(obj.Metadata.Annotations[breakGlassAnnotation])
	slices.Sort(tokens)
	tokens = slices.Compact(tokens)
	if len(tokens) > tokensMax {
		return nil, "", fmt.Errorf("the object carries %d break-glass tokens, %d at most", len(tokens), tokensMax)
	}
	return tokens, obj.Metadata.UID, nil
}
