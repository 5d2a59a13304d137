package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/opinion"
)

// jobOpinion asks the other scanner about one image.
const jobOpinion = "opinion"

const (
	opinionWorkers = 2
	opinionTimeMax = 20 * time.Minute // of one image
	// The other scanner is asked again: its advisories change, too.
	opinionAgain   = 24 * time.Hour
	opinionRetry   = 15 * time.Minute
	opinionPage    = 500
	opinionDocMax  = 16 << 20 // bytes that are kept of one answer, which every verdict reads
	opinionPlaces  = 1
	pullTokenExtra = time.Minute // that a token outlives its scan
)

// opinions asks the other scanner of the settings, and remembers what it said.
// It never touches findings.
type opinions struct {
	*Server
	scanner  *opinion.Scanner // nil: there is none
	registry string           // URL under which it reaches us
}

// openOpinion makes the client of the other scanner.
func (s *Server) openOpinion() error {
	s.opinions = &opinions{Server: s}
	if s.cfg.SecondOpinion == "" {
		return nil
	}
	token, err := s.cfg.OpinionToken()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: s.trace.transport(s.egress.Transport())}
	s.opinions.scanner, err = opinion.New(opinion.Options{Source: s.cfg.SecondOpinion, Token: token, Client: client, Now: s.now})
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "second-opinion: %w", err).WithHint("%s", gatehouse.HintOf(err))
	}
	return nil
}

// reachedAt is the URL under which the other scanner reaches this registry. The
// server must listen.
func (o *opinions) reachedAt() string {
	switch {
	case o.cfg.SecondOpinionRegistry != "":
		return strings.TrimRight(o.cfg.SecondOpinionRegistry, "/")
	case len(o.cfg.Hostnames) > 0:
		return "https://" + o.cfg.Hostnames[0]
	}
	return o.URL()
}

func (o *opinions) jobs() *job.Queue {
	return job.New(o.db, job.Options{Log: o.log, Workers: opinionWorkers, GaveUp: map[string]job.GaveUp{jobOpinion: o.gaveUp}})
}

// gaveUp tells that there is no answer, and has the scanner asked again later.
func (o *opinions) gaveUp(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
	var digest gatehouse.Digest
	if err := json.Unmarshal(j.Payload, &digest); err != nil || o.scanner == nil {
		return nil // no question of ours, or nobody to ask
	}
	if err := tx.SaveOpinion(ctx, db.Opinion{Digest: digest, Source: o.scanner.Name(), Error: givenUp(j, reason)}); err != nil {
		return err
	}
	return enqueueOpinion(ctx, tx, digest, tx.Now().Add(opinionAgain))
}

// indexed has the other scanner asked about a new image, in the transaction that
// stores it.
func (o *opinions) indexed(ctx context.Context, tx *db.Tx, image gatehouse.Digest) error {
	if o == nil || o.scanner == nil {
		return nil
	}
	return enqueueOpinion(ctx, tx, image, tx.Now())
}

func enqueueOpinion(ctx context.Context, tx *db.Tx, image gatehouse.Digest, at time.Time) error {
	payload, err := json.Marshal(image)
	if err != nil {
		return err
	}
	return job.Enqueue(ctx, tx, jobOpinion, string(image), payload, at)
}

// catchUp has the scanner asked about images that were there before it.
func (o *opinions) catchUp(ctx context.Context) error {
	if o.scanner == nil {
		return nil
	}
	for after := int64(0); ; {
		n := 0
		err := o.db.Write(ctx, func(tx *db.Tx) error {
			list, err := tx.ImagesWithoutOpinion(ctx, o.scanner.Name(), after, opinionPage)
			if err != nil {
				return err
			}
			n = len(list)
			for _, img := range list {
				if err := enqueueOpinion(ctx, tx, img.Digest, tx.Now()); err != nil {
					return err
				}
				after = img.ID
			}
			return nil
		})
		if err != nil || n < opinionPage {
			return err
		}
	}
}

// run asks about one image. That it got no answer is a result, too: it is told,
// and the scanner is asked again later.
func (o *opinions) run(ctx context.Context, j *job.Job) error {
	var digest gatehouse.Digest
	if err := json.Unmarshal(j.Payload, &digest); err != nil {
		return job.Permanent(err)
	}
	if o.scanner == nil {
		return nil // it was turned off meanwhile
	}
	var places []db.Place
	err := o.db.Read(ctx, func(tx *db.Tx) (err error) {
		places, err = tx.Places(ctx, digest, opinionPlaces)
		return err
	})
	if err != nil || len(places) == 0 {
		return err // the image is gone
	}
	said, askErr := o.ask(ctx, places[0].Repo, digest)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	row, again := db.Opinion{Digest: digest, Source: o.scanner.Name()}, opinionAgain
	if askErr == nil {
		if row.Doc, askErr = json.Marshal(said); askErr == nil && len(row.Doc) > opinionDocMax {
			askErr = gatehouse.Errorf(gatehouse.CodeTooLarge, "the answer has more than %d bytes", opinionDocMax)
		}
	}
	if askErr != nil {
		o.log.WarnContext(ctx, "second opinion failed", "image", digest, "source", row.Source, "error", askErr)
		row.Error, row.Doc, again = unnamed(reasonOf(askErr), places[0].Repo), nil, opinionRetry
	}
	return o.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.SaveOpinion(ctx, row); err != nil {
			return err
		}
		if err := enqueueOpinion(ctx, tx, digest, tx.Now().Add(again)); err != nil {
			return err
		}
		return j.Finish(ctx, tx)
	})
}

// unnamed takes the name of a repository out of what another scanner said of an
// image: it is told to everybody who may read the image, in whichever repository.
func unnamed(text string, repo gatehouse.Repo) string {
	return regexp.MustCompile(`\b`+regexp.QuoteMeta(string(repo))+`\b`).ReplaceAllLiteralString(text, "REPOSITORY")
}

// ask lets the scanner pull from the one repository while it is asked.
func (o *opinions) ask(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (said opinion.Opinion, err error) {
	m, err := o.content.Manifest(ctx, repo, digest)
	if err != nil {
		return said, err
	}
	var body struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return said, err
	}
	img := opinion.Image{Registry: o.registry, Repo: repo, Digest: digest, MediaType: m.MediaType}
	for _, l := range body.Layers {
		img.Layers = append(img.Layers, l.Digest)
	}
	ctx, cancel := context.WithTimeout(ctx, opinionTimeMax)
	defer cancel()
	secret := rand.Text() + rand.Text()
	err = o.db.Write(ctx, func(tx *db.Tx) error {
		return tx.AddPullToken(ctx, secret, repo, tx.Now().Add(opinionTimeMax+pullTokenExtra))
	})
	if err != nil {
		return said, err
	}
	defer func() {
		done := context.WithoutCancel(ctx)
		if dropErr := o.db.Write(done, func(tx *db.Tx) error { return tx.DropPullToken(done, secret) }); err == nil {
			err = dropErr
		}
	}()
	img.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(pullTokenUser+":"+secret))
	return o.scanner.Ask(ctx, img)
}

// runScanners runs the jobs of scans for others and of other scanners: both take
// long, and no push waits for them.
func (s *Server) runScanners(work context.Context, back *errgroup.Group) {
	if s.adapter != nil {
		handlers := s.jobHandlers(map[string]job.Handler{jobAdapter: s.adapter.run})
		back.Go(func() error { return stopped(work, s.adapterJobs().Run(work, handlers)) })
	}
	s.opinions.registry = s.opinions.reachedAt()
	handlers := s.jobHandlers(map[string]job.Handler{jobOpinion: s.opinions.run})
	back.Go(func() error { return stopped(work, s.opinions.jobs().Run(work, handlers)) })
	back.Go(func() error { return stopped(work, s.opinions.catchUp(work)) })
}
