package config

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Limits of what the API server waits for a webhook.
const (
	webhookTimeoutMin = time.Second
	webhookTimeoutMax = 30 * time.Second
)

// labelName is RFC 1123's: of a namespace or a Service.
var labelName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// resourceForm is that of webhook-resources.
var resourceForm = regexp.MustCompile(`^(([a-z0-9][-a-z0-9.]*|\*)/)?([a-z0-9]+|\*)$`)

// Service is the Service by which the cluster reaches the webhook.
type Service struct {
	Namespace, Name string
	Port            int
}

// Service is webhook-service, parsed; the zero value where there is none. Errors:
// CodeInvalid.
func (c Config) Service() (s Service, err error) {
	if c.WebhookService == "" {
		return s, nil
	}
	bad := invalid("webhook-service", "%q is not NAMESPACE/NAME or NAMESPACE/NAME:PORT", c.WebhookService)
	namespace, rest, ok := strings.Cut(c.WebhookService, "/")
	name, port, given := strings.Cut(rest, ":")
	s = Service{Namespace: namespace, Name: name, Port: 443}
	if given {
		if s.Port, err = strconv.Atoi(port); err != nil || s.Port < 1 || s.Port > 65535 {
			return Service{}, bad
		}
	}
	if !ok || !labelName.MatchString(namespace) || !labelName.MatchString(name) {
		return Service{}, bad
	}
	return s, nil
}

func (c Config) checkCluster() error {
	if _, err := c.Service(); err != nil {
		return err
	}
	if c.WebhookService != "" && c.WebhookURL != "" {
		return invalid("webhook-url", "webhook-service and webhook-url are both set").WithHint("set the one by which the API server reaches the webhook")
	}
	if c.WebhookURL != "" {
		u, err := url.Parse(c.WebhookURL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return invalid("webhook-url", "%q is not https://HOST or https://HOST:PORT", c.WebhookURL)
		}
	}
	if c.Kubeconfig == "" && (c.WebhookService != "" || c.WebhookURL != "") {
		return invalid("kubeconfig", "webhook configurations are wanted, but no cluster is named").WithHint("set kubeconfig to a file, or to in-cluster")
	}
	if c.Kubeconfig != "" && c.AdmissionListen == "" && (c.WebhookService != "" || c.WebhookURL != "") {
		return invalid("admission-listen", "webhook configurations are wanted, but the webhook is off")
	}
	if c.WebhookTimeout < webhookTimeoutMin || c.WebhookTimeout > webhookTimeoutMax || c.WebhookTimeout%time.Second != 0 {
		return invalid("webhook-timeout", "%s is not between 1s and 30s in whole seconds", FormatDuration(c.WebhookTimeout))
	}
	if c.WebhookOverlap < 0 {
		return invalid("webhook-overlap", "%s is negative", FormatDuration(c.WebhookOverlap))
	}
	if c.ClusterNamespace != "" && !labelName.MatchString(c.ClusterNamespace) {
		return invalid("cluster-namespace", "%q is not the name of a namespace", c.ClusterNamespace)
	}
	for _, name := range c.AdmissionExemptNamespaces {
		if !labelName.MatchString(name) {
			return invalid("admission-exempt-namespaces", "%q is not the name of a namespace", name)
		}
	}
	for _, r := range c.WebhookResources {
		if !resourceForm.MatchString(r) {
			return invalid("webhook-resources", "%q is not GROUP/RESOURCE", r).WithHint("write services, or networking.k8s.io/ingresses: the plural, in lower case")
		}
	}
	return nil
}
