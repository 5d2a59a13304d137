package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rule"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/operator/pki"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// homeDefault is our namespace where nothing says another, and homeFile where a pod
// finds its own.
const (
	homeDefault = "gatehouse"
	homeFile    = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// Leases of the two works that one replica does of all: what follows from the policies
// in force, and what the webhook needs.
const (
	leaseServer  = "gatehouse-server"
	leaseCluster = "gatehouse"
)

// kubernetes is the cluster that the server works for. Its methods work on nil,
// which knows nothing.
type kubernetes struct {
	server *Server
	client *kube.Client
	view   *operator.View
	// keepers do what one replica does of all: one what follows from the policies in
	// force, and another, unless gatehouse operator does it, what the webhook needs.
	keepers []*operator.Keeper
	home    string
	// webhook is how the cluster asks us; nil: that is not ours to say.
	webhook *operator.Webhook
	served  *certificate // to those who ask us; nil: not one of the cluster
}

// PolicyKinds are the custom resources that hold policies.
func PolicyKinds() []operator.PolicyKind {
	return append([]operator.PolicyKind{
		{Group: cip.Group, Plural: "clusterimagepolicies", Versions: []string{"v1beta1", "v1alpha1"}},
		{Group: cip.Group, Plural: "trustroots", Versions: []string{"v1alpha1"}},
		{Group: ruleGroup, Plural: "imagerules", Versions: []string{ruleVersion}},
	}, gatekeeperKinds()...)
}

// ruleGroup and ruleVersion are those of ImageRule.
var ruleGroup, ruleVersion, _ = strings.Cut(rule.Version, "/")

// Definitions are the custom resources that are made in a cluster.
func Definitions() []operator.Definition {
	ready := [2]string{"Ready", `.status.conditions[?(@.type=="Ready")].status`}
	mode := [2]string{"Mode", ".spec.mode"}
	return append([]operator.Definition{
		{
			Group: cip.Group, Kind: cip.Kind, Plural: "clusterimagepolicies", Singular: "clusterimagepolicy",
			ShortNames: []string{"cip"}, Categories: []string{"all", "sigstore"},
			// Stored is what policy-controller stores, so that either program reads it.
			Versions: []string{"v1alpha1", "v1beta1"}, Grammar: cip.Schema(), Columns: [][2]string{mode, ready},
		},
		{
			Group: cip.Group, Kind: cip.KindTrustRoot, Plural: "trustroots", Singular: "trustroot",
			Categories: []string{"all", "sigstore"}, Versions: []string{"v1alpha1"}, Grammar: cip.SchemaTrustRoot(), Columns: [][2]string{ready},
		},
		{
			Group: ruleGroup, Kind: rule.Kind, Plural: "imagerules", Singular: "imagerule",
			Categories: []string{"gatehouse"}, Versions: []string{ruleVersion}, Grammar: rule.Schema(), Columns: [][2]string{mode, ready},
		},
	}, gatekeeperDefinitions()...)
}

// openCluster prepares what the settings say of a cluster. It asks it nothing.
func (s *Server) openKubernetes(ctx context.Context, getenv func(string) string) error {
	if s.cfg.Kubeconfig == "" {
		return nil
	}
	kube.LogTo(s.log)
	client, err := openClient(ctx, s.cfg, getenv, s.log)
	if err != nil {
		return err
	}
	c := &kubernetes{server: s, client: client.Client}
	s.stop = append(s.stop, client.close)
	if c.home, err = homeOf(s.cfg); err != nil {
		return err
	}
	if c.webhook, err = webhookOf(s.cfg); err != nil {
		return err
	}
	c.view, err = operator.NewView(operator.ViewOptions{
		Client: c.client, Namespace: c.home, Kinds: PolicyKinds(), Named: s.policies.named, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.policies.outside.SetCluster(clusterObjects{c.view, c.home})
	inForce := operator.KeeperOptions{
		Client: c.client, View: c.view, Namespace: c.home, Identity: identity(), Lease: leaseServer, Owner: s.cfg.ClusterOwner, Webhook: c.webhook,
		Documents: c.take, Status: c.status, Log: s.log,
	}
	if inForce.Webhook == nil {
		inForce.Webhook = sparedOf(s.cfg)
	}
	if s.cfg.FallbackPolicy {
		inForce.Fallback = c.fallback
	}
	c.keepers = append(c.keepers, operator.NewKeeper(inForce))
	if s.cfg.ClusterManage {
		options := keeperOf(s.cfg, c.client, c.view, c.home, c.webhook, s.log)
		options.Ready = c.ready
		c.keepers = append(c.keepers, operator.NewKeeper(options))
	}
	s.kubernetes, s.decider.kubernetes, s.glass.access = c, c, c
	return nil
}

// homeOf is our namespace.
func homeOf(cfg config.Config) (string, error) {
	if cfg.ClusterNamespace != "" {
		return cfg.ClusterNamespace, nil
	}
	if cfg.Kubeconfig != keyref.InCluster {
		return homeDefault, nil
	}
	b, err := os.ReadFile(homeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return homeDefault, nil
	}
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the namespace of this pod: %w", err).WithHint("set cluster-namespace")
	}
	return strings.TrimSpace(string(b)), nil
}

// webhookOf is what the settings say of the webhook; nil where the cluster is not told
// of it.
func webhookOf(cfg config.Config) (*operator.Webhook, error) {
	if err := operator.CheckSelector(cfg.WebhookNamespaces); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "webhook-namespaces: %w", err)
	}
	service, err := cfg.Service()
	if err != nil || cfg.WebhookService == "" && cfg.WebhookURL == "" {
		return nil, err
	}
	w := sparedOf(cfg)
	w.Service, w.URL, w.Fail, w.Timeout = operator.Service(service), cfg.WebhookURL, cfg.WebhookFailurePolicy == "fail", cfg.WebhookTimeout
	w.Resources, w.Mutate, w.Policies = cfg.WebhookResources, cfg.AdmissionMutate, PolicyKinds()
	w.OtherCA = cfg.AdmissionTLSCert != ""
	return w, nil
}

// sparedOf is a webhook that says only which namespaces are left alone.
func sparedOf(cfg config.Config) *operator.Webhook {
	return &operator.Webhook{Skip: cfg.AdmissionExemptNamespaces, Selector: cfg.WebhookNamespaces}
}

// keeperOf is what the settings say of the things of ours in the cluster.
func keeperOf(cfg config.Config, client *kube.Client, view *operator.View, home string, webhook *operator.Webhook, log *slog.Logger) operator.KeeperOptions {
	o := operator.KeeperOptions{
		Client: client, View: view, Namespace: home, Identity: identity(), Lease: leaseCluster, Owner: cfg.ClusterOwner,
		Definitions: Definitions(), Constraints: constraintGrammar(), Webhook: webhook, Terms: pki.DefaultTerms(), Log: log,
	}
	o.Terms.Overlap = cfg.WebhookOverlap
	if webhook != nil {
		o.Terms.Names = webhookNames(cfg, *webhook)
	}
	return o
}

// webhookNames are those that the webhook's certificate is for.
func webhookNames(cfg config.Config, w operator.Webhook) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, cfg.AdmissionNames...)
	return append(names, w.Names()...)
}

// identity names this process among those that share a lease.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s_%d_%d", host, os.Getpid(), time.Now().UnixNano())
}

// run follows the cluster until ctx ends.
func (c *kubernetes) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.view.Run(ctx) })
	for _, k := range c.keepers {
		g.Go(func() error { return k.Run(ctx) })
	}
	if c.server.cfg.RunningAudit {
		g.Go(func() error { return c.runRunning(ctx, c.keepers[0].Leads) })
	}
	return g.Wait()
}

// complete adds to a request what the cluster knows. What it does not tell stays
// unknown, and denies where a policy needs it.
func (c *kubernetes) complete(ctx context.Context, set decide.PolicySet, req *gatehouse.Request) {
	if c == nil {
		return
	}
	if len(set.Lookups) > 0 { // a set that could not be read ends no copies
		if c.view.Lookup(set.Lookups); req.Inventory == nil {
			req.Inventory = c.view.Inventory()
		}
	}
	if req.Namespace == "" || req.NamespaceObject != nil || req.Kind == (gatehouse.ObjectKind{Version: "v1", Kind: "Namespace"}) {
		return
	}
	o, err := c.view.Namespace(ctx, req.Namespace)
	if err != nil {
		c.server.log.WarnContext(ctx, "namespace unknown", "namespace", req.Namespace, "error", err)
		return
	}
	req.NamespaceObject = o
}

// CanBreakGlass implements clusterAccess.
func (c *kubernetes) CanBreakGlass(ctx context.Context, user gatehouse.User, namespace string) (bool, error) {
	return c.view.Allowed(ctx, user, operator.Access{
		Namespace: namespace, Verb: "create", Group: ruleGroup, Resource: "breakglasses",
	})
}

// take makes the documents of the cluster those that count.
func (c *kubernetes) take(ctx context.Context, docs map[string]string) error {
	return c.server.db.Write(ctx, func(tx *db.Tx) error {
		changed, err := tx.SetClusterDocuments(ctx, gatehouse.System("cluster"), docs)
		if err != nil || !changed {
			return err
		}
		return pipeline.PoliciesChanged(ctx, tx)
	})
}

// ready tells why reviews would not be answered now.
func (c *kubernetes) ready(ctx context.Context, _ []byte) error {
	if err := c.server.serving(); err != nil {
		return err
	}
	if err := c.view.Synced(); err != nil {
		return err
	}
	if err := c.shown(); err != nil {
		return err
	}
	for _, p := range c.server.probe(ctx) {
		if p.err != nil {
			return p.err
		}
	}
	set, err := c.server.policies.Set(ctx)
	if err == nil {
		c.view.Lookup(set.Lookups) // so that they are known when the first review comes
	}
	return err
}

// known tells why nobody knows the policies of the cluster: it has never been read. What
// was read once counts while it is away.
func (c *kubernetes) known(ctx context.Context) error {
	if c == nil {
		return nil
	}
	if _, err := c.server.policies.Set(ctx); err != nil {
		return err
	}
	if now := c.server.policies.current.Load(); now.unread {
		return errClusterUnread
	}
	return nil
}

var errClusterUnread = errors.New("the cluster has not been read yet")

// serves reports whether the webhook's certificate lies in the cluster.
func (c *kubernetes) serves() bool { return c != nil && c.webhook != nil && !c.webhook.OtherCA }

// shown tells why the certificate that callers trust is not served yet. Once it says
// nothing, the next handshake shows that one.
func (c *kubernetes) shown() error {
	if !c.serves() {
		return nil
	}
	if _, err := c.view.Material(); err != nil || c.served == nil {
		return err
	}
	return c.served.load()
}

// certificate is the source of the webhook's certificate: that of the cluster, as it was
// known last, and before it is known one that nobody trusts.
func (c *kubernetes) certificate(now func() time.Time) func(time.Time) ([]byte, []byte, error) {
	terms := pki.DefaultTerms()
	terms.Names = webhookNames(c.server.cfg, *c.webhook)
	known, _, err := pki.Material{}.Next(now(), terms)
	return func(time.Time) ([]byte, []byte, error) {
		if m, lost := c.view.Material(); lost == nil {
			known, err = m, nil
		}
		return known.Cert, known.Key, err
	}
}

// fallback is what the policies in force let the API server judge by itself.
func (c *kubernetes) fallback(ctx context.Context) (operator.Fallback, error) {
	set, err := c.server.policies.Set(ctx)
	if err != nil {
		return operator.Fallback{}, err
	}
	return fallbackOf(set), nil
}

// status tells of each policy of the cluster whether it counts.
func (c *kubernetes) status(ctx context.Context) (map[string]operator.Status, error) {
	return c.server.policies.status(ctx)
}

// CheckCluster finds settings of a cluster that cannot work. It contacts nobody.
// Errors: CodeInvalid.
func CheckCluster(cfg config.Config) error {
	if _, err := webhookOf(cfg); err != nil {
		return err
	}
	if cfg.Kubeconfig == "" || cfg.Kubeconfig == keyref.InCluster {
		return nil
	}
	if _, err := os.Stat(cfg.Kubeconfig); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "kubeconfig: %w", err)
	}
	return nil
}
