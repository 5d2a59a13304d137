package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// Reason codes of break-glass.
const (
	codeBreakGlass        = "break-glass"
	codeBreakGlassRefused = "break-glass-refused"
)

// never are denials that no token overrides: what runs is not known, or nothing could
// be noted any more.
var never = []string{decide.CodeObjectInvalid, decide.CodeReferenceInvalid, decide.CodeFactsIncomplete, decide.CodeTimeout}

// ofAll are denials by the decision itself that tokens for all images override.
var ofAll = []string{decide.CodeNoPolicies, decide.CodePoliciesIncomplete}

// override turns a denial into a warning where the object carries tokens for all that
// it is denied for. They are used up in the transaction that says so; if that fails,
// the denial stands.
func (g *glass) override(ctx context.Context, req gatehouse.Request, d gatehouse.Decision) gatehouse.Decision {
	if d.Verdict != gatehouse.Deny || req.Operation != "CREATE" && req.Operation != "UPDATE" {
		return d
	}
	tokens, uid, err := carried(req.Object)
	if err == nil && len(tokens) == 0 {
		return d
	}
	var used []db.BreakGlass
	if err == nil {
		used, err = g.use(ctx, req, d, tokens, uid)
	}
	if err != nil {
		return g.refused(ctx, req, d, err)
	}
	for _, b := range used {
		g.log.WarnContext(ctx, "break-glass use", "token", b.ID, "namespace", b.Namespace, "digest", b.Digest, "requester", b.Requester, "decision", d.ID, "reason", b.Reason, "dryRun", req.DryRun)
	}
	g.metrics.breakGlass.WithLabelValues("used").Inc()
	return overridden(d, used)
}

// letInMax bounds the tokens of one image that are looked at.
const letInMax = 100

// letIn turns a denial of images into a warning where the webhook has let each of them
// in by a token that holds still: the node asks before it pulls what runs already as far
// as the cluster is concerned. Nothing is used up. It counts for a question that comes
// from a node, which knows neither the user nor the namespace, and from a namespace.
func (g *glass) letIn(ctx context.Context, req gatehouse.Request, d gatehouse.Decision) gatehouse.Decision {
	if d.Verdict != gatehouse.Deny || req.UID != admit.ImageReviewUID {
		return d
	}
	need, err := needed(req, d)
	if err != nil {
		return d
	}
	var used []db.BreakGlass
	err = g.db.Read(ctx, func(tx *db.Tx) error {
		used = nil
		for _, digest := range need.digests {
			list, err := tx.BreakGlassesUsed(ctx, digest, letInMax)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(b db.BreakGlass) bool {
				return (b.Everything || !need.everything) && (req.Namespace == "" || b.Namespace == req.Namespace)
			})
			if i < 0 {
				used = nil
				return nil
			}
			used = append(used, list[i])
		}
		return nil
	})
	if err != nil {
		g.log.ErrorContext(ctx, "break-glass failed", "decision", d.ID, "error", err)
		return d
	}
	if len(used) == 0 {
		return d
	}
	g.log.WarnContext(ctx, "break-glass pull", "token", used[0].ID, "digest", used[0].Digest, "decision", d.ID)
	return overridden(d, used)
}

// overridden is a denial that tokens override: each denying reason warns, and beside
// them stands who may do that and why.
func overridden(d gatehouse.Decision, used []db.BreakGlass) gatehouse.Decision {
	d.Verdict, d.Reasons, d.Tree = gatehouse.Warn, slices.Clone(d.Reasons), slices.Clone(d.Tree)
	for i := range d.Reasons {
		if d.Reasons[i].Verdict == gatehouse.Deny {
			d.Reasons[i].Verdict = gatehouse.Warn
		}
	}
	var why []gatehouse.Reason
	for _, b := range used {
		message := fmt.Sprintf("break-glass token %d of %s overrides the policies for %s, made by %s: %s", b.ID, b.Requester, b.Digest, b.CreatedBy, b.Reason)
		why = append(why, gatehouse.Reason{Verdict: gatehouse.Warn, Code: codeBreakGlass, Message: message, Evidence: []gatehouse.Digest{b.Digest}})
		d.Tree = append(d.Tree, gatehouse.Step{Kind: gatehouse.StepCheck, Name: codeBreakGlass, Code: codeBreakGlass, Result: gatehouse.StepWarned, Digest: b.Digest, Message: message})
	}
	return decide.WithReasons(d, why...)
}

// refused is the denial with why tokens did not help.
func (g *glass) refused(ctx context.Context, req gatehouse.Request, d gatehouse.Decision, err error) gatehouse.Decision {
	r := gatehouse.Reason{Code: codeBreakGlassRefused, Message: "the break-glass tokens of this object do not override it: " + err.Error(), Hint: gatehouse.HintOf(err)}
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeDenied, gatehouse.CodeConflict, gatehouse.CodeNotFound, gatehouse.CodeInvalid:
	default: // its text belongs to the log
		r.Message = "the break-glass tokens of this object could not be checked"
		g.log.ErrorContext(ctx, "break-glass failed", "decision", d.ID, "error", err)
	}
	g.metrics.breakGlass.WithLabelValues("refused").Inc()
	g.log.WarnContext(ctx, "break-glass refused", "namespace", req.Namespace, "requester", req.User.Name, "decision", d.ID, "reason", r.Message)
	return decide.WithReasons(d, r)
}

// asked is what tokens have to hold for.
type asked struct {
	digests    []gatehouse.Digest // of images
	everything bool               // also what is no image
}

// needed says what is denied, or that no token overrides that.
func needed(req gatehouse.Request, d gatehouse.Decision) (a asked, err error) {
	all := false
	fields := map[string]bool{}
	for _, r := range d.Reasons {
		if r.Verdict != gatehouse.Deny {
			continue
		}
		switch {
		case slices.Contains(never, r.Code):
			return a, gatehouse.Errorf(gatehouse.CodeDenied, "%s is not overridden by any token", r.Code)
		case r.Field != "" && r.Image != "":
			fields[r.Field] = true
		case r.Policy != "":
			all, a.everything = true, true
		case slices.Contains(ofAll, r.Code):
			all = true
		default:
			return a, gatehouse.Errorf(gatehouse.CodeDenied, "%s is not overridden by any token", r.Code)
		}
	}
	for _, f := range req.Images {
		if !all && !fields[f.Field] {
			continue
		}
		delete(fields, f.Field)
		ref, err := gatehouse.ParseRef(f.Written)
		if err != nil || ref.Digest == "" {
			return a, gatehouse.Errorf(gatehouse.CodeDenied, "image %.300s is not written with its digest", f.Written).
				WithHint("a token is for one digest: write the image as name@sha256:…")
		}
		if !slices.Contains(a.digests, ref.Digest) {
			a.digests = append(a.digests, ref.Digest)
		}
	}
	if len(fields) > 0 || len(a.digests) == 0 {
		return a, gatehouse.Errorf(gatehouse.CodeDenied, "what is denied is no image of the object")
	}
	return a, nil
}

// use looks the tokens up and uses up those that are needed, all or none.
func (g *glass) use(ctx context.Context, req gatehouse.Request, d gatehouse.Decision, tokens []string, uid string) ([]db.BreakGlass, error) {
	need, err := needed(req, d)
	if err != nil {
		return nil, err
	}
	if req.User.Name == "" || req.Namespace == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the review names no user or no namespace")
	}
	digests := make([]gatehouse.Digest, len(tokens))
	for i, token := range tokens {
		digests[i] = gatehouse.DigestOf([]byte(token))
	}
	slices.Sort(digests) // two reviews with the same tokens take them in one order
	var chosen []db.BreakGlass
	read := func(tx *db.Tx) error {
		chosen, err = choose(ctx, tx, req, need, digests, uid)
		return err
	}
	// Statements are signed before the transaction that uses the tokens up: signing
	// may need one of its own.
	if err := g.db.Read(ctx, read); err != nil {
		return nil, err
	}
	if err := g.allowed(ctx, req); err != nil || req.DryRun {
		return chosen, err
	}
	signed := map[int64]sign.Attachment{}
	proofs := map[int64]json.RawMessage{}
	for _, b := range chosen {
		if signed[b.ID], proofs[b.ID], err = g.state(ctx, useOf(b, req, d, uid)); err != nil {
			return nil, err
		}
	}
	actor := gatehouse.Actor{Name: req.User.Name, Source: "kubernetes", Groups: req.User.Groups}
	err = g.db.Write(ctx, func(tx *db.Tx) error {
		if err := read(tx); err != nil {
			return err
		}
		for _, b := range chosen {
			if !b.UsedAt.IsZero() { // by this object, when it was created
				continue
			}
			if _, ok := signed[b.ID]; !ok {
				return gatehouse.Errorf(gatehouse.CodeConflict, "break-glass tokens have changed meanwhile")
			}
			b.UsedBy, b.Decision = uid, d.ID
			if err := tx.UseBreakGlass(ctx, actor, b, proofs[b.ID]); err != nil {
				return err
			}
			if err := g.noteStatement(ctx, tx, keyBreakGlass, signed[b.ID]); err != nil {
				return err
			}
		}
		return tx.SaveDecision(ctx, overridden(d, chosen))
	})
	return chosen, err
}

// allowed refuses who may not break the glass. Whoever makes up tokens costs the cluster
// no question: it is asked about those that hold.
func (g *glass) allowed(ctx context.Context, req gatehouse.Request) error {
	if g.access == nil {
		return nil
	}
	ok, err := g.access.CanBreakGlass(ctx, req.User, req.Namespace)
	if err != nil || ok {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "%s may not break the glass in namespace %s", req.User.Name, req.Namespace).
		WithHint("the cluster has to allow create breakglasses.gatehouse.dev there")
}

// choose finds for each image a token that holds for it. The first one that does not
// says why where none does.
func choose(ctx context.Context, tx *db.Tx, req gatehouse.Request, need asked, tokens []gatehouse.Digest, uid string) ([]db.BreakGlass, error) {
	var good []db.BreakGlass
	var why []error
	for _, token := range tokens {
		b, ok, err := tx.BreakGlassByToken(ctx, token)
		if err != nil {
			return nil, err
		}
		if !ok {
			why = append(why, gatehouse.Errorf(gatehouse.CodeNotFound, "a token is unknown"))
			continue
		}
		if err := holds(b, req, uid, tx.Now()); err != nil {
			why = append(why, err)
			continue
		}
		good = append(good, b)
	}
	var chosen []db.BreakGlass
	for _, digest := range need.digests {
		i := slices.IndexFunc(good, func(b db.BreakGlass) bool { return b.Digest == digest && (b.Everything || !need.everything) })
		if i >= 0 {
			chosen = append(chosen, good[i])
			continue
		}
		missing := gatehouse.Errorf(gatehouse.CodeDenied, "no token that holds is for %s", digest)
		if need.everything && slices.ContainsFunc(good, func(b db.BreakGlass) bool { return b.Digest == digest }) {
			missing = gatehouse.Errorf(gatehouse.CodeDenied, "a policy objects to the object and not to an image").
				WithHint("gatehouse break-glass create --everything makes tokens that override such policies, too")
		}
		return nil, explained(missing, why)
	}
	return chosen, nil
}

// explained is an error with what is wrong with the tokens that there are.
func explained(err *gatehouse.Error, why []error) error {
	var said []string
	for _, w := range why {
		said = append(said, w.Error())
	}
	if len(said) == 0 {
		return err
	}
	e := gatehouse.Errorf(err.Code, "%s: %s", err.Message, strings.Join(said, "; "))
	e.Hint = err.Hint
	return e
}

// holds says why a token is of no use for a review.
func holds(b db.BreakGlass, req gatehouse.Request, uid string, now time.Time) error {
	var why string
	switch {
	case b.Namespace != req.Namespace:
		why = "is for another namespace"
	case b.Requester != req.User.Name:
		why = "is for another requester"
	case !b.RevokedAt.IsZero():
		why = "was revoked"
	case !now.Before(b.ExpiresAt):
		why = "has expired"
	case !b.UsedAt.IsZero() && (uid == "" || b.UsedBy != uid):
		why = "has been used"
	default:
		return nil
	}
	return errors.New("token " + fmt.Sprint(b.ID) + " " + why)
}

func useOf(b db.BreakGlass, req gatehouse.Request, d gatehouse.Decision, uid string) breakGlassStatement {
	return breakGlassStatement{
		Act: "use", Namespace: b.Namespace, Digest: b.Digest, Requester: b.Requester, Everything: b.Everything, Reason: b.Reason, By: req.User.Name,
		ExpiresAt: b.ExpiresAt.Truncate(time.Second), Token: b.ID, Decision: d.ID, Object: strings.TrimSpace(req.Kind.Kind + " " + req.Name + " " + uid),
	}
}
