package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/admit/node"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// verifierFlags are the flags of image-verifier.
type verifierFlags struct {
	name, digest, mediaType string
	config                  string
	serve, cert, key        string
}

func (a *app) imageVerifierCmd() *cobra.Command {
	var f verifierFlags
	cmd := &cobra.Command{
		Use:   "image-verifier",
		Short: "containerd's image verifier: may this node pull an image",
		Long: `Asks a Gatehouse server whether an image may run, as containerd's plugin
io.containerd.image-verifier.v1.bindir wants it: exit code 0 lets the image be pulled,
any other does not, and standard output says why. Link the program as
gatehouse-image-verifier into the plugin's directory: containerd runs what lies there
with -name, -digest and -stdin-media-type, and a descriptor on standard input.

What the list always.digests of /etc/gatehouse/node.yaml names, and the sandbox of
Pods, is let through without asking, so that a node starts while Gatehouse is down;
everything else is denied then. With --serve it answers the ImagePolicyWebhook of an
API server on the same machine in that way instead. docs/doors.md tells the rest.`,
		Example: `  ln -s /usr/local/bin/gatehouse /opt/containerd/image-verifier/bin/gatehouse-image-verifier
  gatehouse image-verifier --name registry.example/app:v1 --digest sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945
  gatehouse image-verifier --serve 127.0.0.1:8444`,
		Annotations: map[string]string{ownEnvironment: "none"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.serve != "" {
				return a.serveRelay(cmd.Context(), f)
			}
			return a.verifyImage(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "the image as it is asked for")
	flags.StringVar(&f.digest, "digest", "", "the digest that it has")
	flags.StringVar(&f.mediaType, "stdin-media-type", "", "media type of the descriptor on standard input")
	flags.StringVar(&f.config, "node-config", "", "configuration of the node (default: "+nodeConfigFile+", or "+nodeConfigEnv+")")
	flags.StringVar(&f.serve, "serve", "", "answer an API server's ImagePolicyWebhook at this address instead")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate of --serve, a PEM file; loopback only without one")
	flags.StringVar(&f.key, "tls-key", "", "its key, a PEM file")
	return cmd
}

// verifyImage answers containerd. Whatever is wrong is a no on standard output, where
// containerd looks for the reason.
func (a *app) verifyImage(ctx context.Context, f verifierFlags) error {
	var status admit.ImageReviewStatus
	if f.name == "" || f.digest == "" {
		status.Reason = "-name and -digest are needed"
	} else {
		ask, broken := a.nodeAsker(f.config)
		in := a.stdin
		if f.mediaType == "" { // a person, who has no descriptor
			in = nil
		}
		status = ask.Verify(ctx, f.name, f.digest, f.mediaType, in)
		if !status.Allowed && broken != nil {
			status.Reason = broken.Error()
			if hint := gatehouse.HintOf(broken); hint != "" {
				status.Reason += "; hint: " + hint
			}
		}
	}
	word := "allowed"
	if !status.Allowed {
		word = "denied"
	}
	if status.Reason != "" {
		word += ": " + report.PrintableLines(status.Reason)
	}
	if _, err := fmt.Fprintln(a.stdout, word); err != nil {
		return err
	}
	if !status.Allowed {
		return answerNo{code: 1}
	}
	return nil
}

// nodeAsker reads the node's configuration. The asker is there even if that fails.
func (a *app) nodeAsker(flag string) (*node.Asker, error) {
	c, err := a.nodeConfig(a.nodeConfigPath(flag))
	ask, broken := c.asker(a)
	if err != nil {
		return ask, err
	}
	return ask, broken
}

const (
	relayTimeout = 35 * time.Second // for one request, more than a question may take
	relayHeader  = 64 << 10
)

// serveRelay answers an API server until ctx ends.
func (a *app) serveRelay(ctx context.Context, f verifierFlags) error {
	if (f.cert == "") != (f.key == "") {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--tls-cert and --tls-key go together")
	}
	if f.cert == "" && !config.Loopback(f.serve) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--serve %s is not loopback", f.serve).WithHint("give --tls-cert and --tls-key, or listen at 127.0.0.1:PORT")
	}
	listener, err := net.Listen("tcp", f.serve)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't listen at %s: %w", f.serve, err)
	}
	scheme := "http"
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't load the certificate: %w", err)
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
		scheme = "https"
	}
	server := &http.Server{
		Handler: &node.Relay{Asker: func() (*node.Asker, error) { return a.nodeAsker(f.config) }}, ReadTimeout: relayTimeout, WriteTimeout: relayTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: relayHeader,
	}
	fmt.Fprintf(a.stdout, "listening at %s://%s\n", scheme, listener.Addr())
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), relayTimeout)
		defer cancel()
		_ = server.Shutdown(end) // what is not answered by then is asked again
	})
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't serve: %w", err)
	}
	return nil
}

func (a *app) credentialProviderCmd() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "credential-provider",
		Short: "the kubelet's credential provider: a login for images that may run",
		Long: `Reads a CredentialProviderRequest (credentialprovider.kubelet.k8s.io/v1) from standard
input, asks a Gatehouse server whether the image may run, and if so prints what its
registry wants to know, from the logins of /etc/gatehouse/node.yaml. Logins of one
registry are never given for another. docs/doors.md shows how the kubelet is told.`,
		Example: `  gatehouse credential-provider < request.json
  gatehouse credential-provider --node-config /etc/gatehouse/node.yaml < request.json`,
		Annotations: map[string]string{ownEnvironment: "none"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.nodeConfig(a.nodeConfigPath(path))
			if err != nil {
				return err
			}
			p, err := c.provider(a)
			if err != nil {
				return err
			}
			out, err := p.Provide(cmd.Context(), a.stdin)
			if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
				return answerNo{code: 1, message: err.Error()}
			}
			if err != nil {
				return err
			}
			return json.NewEncoder(a.stdout).Encode(out)
		},
	}
	cmd.Flags().StringVar(&path, "node-config", "", "configuration of the node (default: "+nodeConfigFile+", or "+nodeConfigEnv+")")
	return cmd
}
