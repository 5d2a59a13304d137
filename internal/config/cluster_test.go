package config_test

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

func TestClusterSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		set func(*config.Config)
		ok  bool
	}{
		"service":              {func(c *config.Config) { c.WebhookService = "gatehouse/webhook:8443" }, true},
		"url":                  {func(c *config.Config) { c.WebhookURL = "https://10.0.0.1:8443" }, true},
		"both":                 {func(c *config.Config) { c.WebhookService, c.WebhookURL = "a/b", "https://c" }, false},
		"service without name": {func(c *config.Config) { c.WebhookService = "gatehouse" }, false},
		"service port":         {func(c *config.Config) { c.WebhookService = "a/b:0" }, false},
		"url without TLS":      {func(c *config.Config) { c.WebhookURL = "http://c" }, false},
		"url with a path":      {func(c *config.Config) { c.WebhookURL = "https://c/validate" }, false},
		"no cluster":           {func(c *config.Config) { c.WebhookURL, c.Kubeconfig = "https://c", "" }, false},
		"webhook off":          {func(c *config.Config) { c.WebhookURL, c.AdmissionListen = "https://c", "" }, false},
		"timeout too long":     {func(c *config.Config) { c.WebhookTimeout = time.Minute }, false},
		"timeout of a moment":  {func(c *config.Config) { c.WebhookTimeout = 1500 * time.Millisecond }, false},
		"failure policy":       {func(c *config.Config) { c.WebhookFailurePolicy = "open" }, false},
		"exempt namespace":     {func(c *config.Config) { c.AdmissionExemptNamespaces = []string{"Kube System"} }, false},
		"namespace":            {func(c *config.Config) { c.ClusterNamespace = "Gatehouse" }, false},
		"resources": {func(c *config.Config) {
			c.WebhookResources = []string{"services", "networking.k8s.io/ingresses", "*/*"}
		}, true},
		"kind, not resource": {func(c *config.Config) { c.WebhookResources = []string{"Service"} }, false},
	} {
		c := config.Default()
		c.Kubeconfig = "in-cluster"
		tt.set(&c)
		err := c.Check()
		if (err == nil) != tt.ok || err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := config.Default()
	c.WebhookService = "gatehouse/webhook"
	if s, err := c.Service(); err != nil || s != (config.Service{Namespace: "gatehouse", Name: "webhook", Port: 443}) {
		t.Errorf("the service is %+v, %v", s, err)
	}
}
