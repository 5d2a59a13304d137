package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// webhookProbe is how long the question may take whether the webhook answers.
const webhookProbe = 5 * time.Second

// RunOperator keeps in the cluster what the webhook needs, without a server: the
// custom resources, the certificate and the webhook configurations. Servers whose
// cluster-manage is false leave it these. It ends with ctx. Errors: CodeInvalid.
func RunOperator(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	kube.LogTo(log)
	client, err := openClient(ctx, cfg, getenv, log)
	if err != nil {
		return err
	}
	defer func() { _ = client.close() }() // it closes idle connections
	home, err := homeOf(cfg)
	if err != nil {
		return err
	}
	webhook, err := webhookOf(cfg)
	if err != nil {
		return err
	}
	view, err := operator.NewView(operator.ViewOptions{Client: client.Client, Namespace: home, Kinds: templateKinds(), CertificateOnly: true, Log: log})
	if err != nil {
		return err
	}
	options := keeperOf(cfg, client.Client, view, home, webhook, log)
	options.Ready = func(ctx context.Context, bundle []byte) error { return answers(ctx, *webhook, bundle) }
	health, err := listenHealth(ctx, cfg.MetricsListen)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "operator start", "cluster", client.URL(), "namespace", home, "health", cfg.MetricsListen)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHealth(ctx, health, view.Synced) })
	g.Go(func() error { return view.Run(ctx) })
	g.Go(func() error { return operator.NewKeeper(options).Run(ctx) })
	err = g.Wait()
	log.Info("operator done")
	return err
}

// answers asks the webhook whether it is ready, as the API server would reach it. Of a
// certificate that another program issues nobody here knows whom to trust.
func answers(ctx context.Context, w operator.Webhook, bundle []byte) error {
	cfg := egress.Config{UserTyped: true, UserAgent: "gatehouse", HeaderTimeout: webhookProbe, DialTimeout: webhookProbe}
	if w.OtherCA {
		cfg.UnverifiedTLS = []string{"*"}
	} else {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM(bundle)
	}
	base := w.URL
	if w.Service.Name != "" {
		base = "https://" + net.JoinHostPort(w.Names()[0], strconv.Itoa(w.Service.Port))
	}
	e := egress.New(cfg)
	defer e.Close()
	ctx, cancel := context.WithTimeout(ctx, webhookProbe)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := e.Transport().RoundTrip(req)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s: %w", base, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s/readyz answered %d", base, resp.StatusCode)
	}
	return nil
}

// InstallDefinitions makes the custom resources in the cluster and returns the names of
// those that belong to another program, which stay as they are.
func InstallDefinitions(ctx context.Context, cfg config.Config, getenv func(string) string) (left []string, err error) {
	client, err := openClient(ctx, cfg, getenv, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.close() }()
	return operator.Install(ctx, client.Client, Definitions())
}

// Uninstall takes out of the cluster what would go on denying without a server: webhook
// configurations and the fallback policy.
func Uninstall(ctx context.Context, cfg config.Config, getenv func(string) string) error {
	client, err := openClient(ctx, cfg, getenv, nil)
	if err != nil {
		return err
	}
	defer func() { _ = client.close() }()
	return operator.Remove(ctx, client.Client)
}

// RotateWebhook asks whoever keeps the webhook's certificate for a new authority.
func RotateWebhook(ctx context.Context, cfg config.Config, getenv func(string) string) error {
	client, err := openClient(ctx, cfg, getenv, nil)
	if err != nil {
		return err
	}
	defer func() { _ = client.close() }()
	home, err := homeOf(cfg)
	if err != nil {
		return err
	}
	return operator.Rotate(ctx, client.Client, home, time.Now())
}

// DefinitionManifests are the custom resources as YAML, for those who apply manifests
// themselves.
func DefinitionManifests() ([]byte, error) {
	var out bytes.Buffer
	for _, d := range Definitions() {
		b, err := yaml.Marshal(d.Object().Object)
		if err != nil {
			return nil, err
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.Bytes(), nil
}
