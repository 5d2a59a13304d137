// Package config holds every setting of the server in one struct. A setting can
// come from a flag, an environment variable or one YAML file; the order of
// strength is that one. It reads settings and checks them; of files it opens
// only the settings themselves and those that hold a secret for them.
package config

import (
	"reflect"
	"strings"
	"time"
)

// FileSizeMax bounds the configuration file, in bytes.
const FileSizeMax = 1 << 20

// DefaultFile is read when no file is named and it exists.
const DefaultFile = "gatehouse.yaml"

// EnvPrefix starts the name of every environment variable: data is
// GATEHOUSE_DATA, admission-listen is GATEHOUSE_ADMISSION_LISTEN.
const EnvPrefix = "GATEHOUSE_"

// Config is all settings. The yaml tag is the key in the file, the name of the
// flag and, in capitals with _ for -, of the environment variable; the help tag
// is what --help says. The comments are docs/config.md.
type Config struct {
	// Directory for everything that is kept: meta.db, blobs, keys, advisories.
	// With database and storage set it holds keys and caches only.
	Data string `yaml:"data" help:"directory for everything that is kept"`
	// URL of a PostgreSQL database, for example
	// postgres://gatehouse@db.example/gatehouse?sslmode=verify-full. Empty is
	// SQLite in the data directory. A password is better kept in database-file.
	Database string `yaml:"database" help:"PostgreSQL URL (postgres://…); empty is SQLite in the data directory"`
	// File that holds the value of database, as Docker and Kubernetes mount
	// secrets. Only one of the two may be set.
	DatabaseFile string `yaml:"database-file" help:"file that holds the value of --database"`
	// Where blobs are kept: s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION,
	// with path-style=true and redirect=true as options. Empty is the data
	// directory. Credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
	// and AWS_SESSION_TOKEN, never from the URL.
	Storage string `yaml:"storage" help:"blob storage (s3://bucket/prefix?endpoint=…); empty is the data directory"`

	// Address of the registry and the API. A port of 0 picks a free one.
	Listen string `yaml:"listen" help:"address of the registry and the API; port 0 picks a free one"`
	// Address of the Kubernetes admission webhook, always TLS. Empty turns it off.
	AdmissionListen string `yaml:"admission-listen" help:"address of the admission webhook (TLS); empty turns it off"`
	// Address for /metrics, /healthz and /readyz without TLS and without a
	// password, for networks where only monitoring gets to. Empty: none. On
	// listen, /metrics needs an account.
	MetricsListen string `yaml:"metrics-listen" help:"address of /metrics without a password, besides --listen; empty turns it off"`
	// Certificate for listen, a PEM file with its chain. It and tls-key are read
	// again when they change; a pair that cannot be used is logged and counted,
	// and the one before stays.
	TLSCert string `yaml:"tls-cert" help:"certificate of --listen, a PEM file; read again when it changes"`
	// Key of tls-cert, a PEM file. Both or none.
	TLSKey string `yaml:"tls-key" help:"its key, a PEM file"`
	// Allow listen beyond loopback without TLS: passwords travel in the clear.
	Insecure bool `yaml:"insecure" help:"listen beyond loopback without TLS: passwords travel in the clear"`
	// Most connections at a time on each listener; more wait to be accepted.
	// 0 is no limit.
	MaxConnections int `yaml:"max-connections" help:"most connections at a time on each listener; 0 is no limit"`
	// How long the server goes on accepting after SIGTERM while /readyz says 503
	// already, so that load balancers notice.
	DrainDelay time.Duration `yaml:"drain-delay" help:"go on accepting this long after SIGTERM while /readyz says 503"`
	// How long running requests may take to end after that. What is left then is
	// cut off; clients resume uploads.
	DrainTime time.Duration `yaml:"drain-time" help:"how long running requests may take to end when the server stops"`

	// Let everybody pull without a name.
	AnonymousPull bool `yaml:"anonymous-pull" help:"let everybody pull without a name"`
	// Registry host names that mean this server, as image references write
	// them ("registry.example.com", "10.0.0.5:5000"): all by which nodes reach it.
	// The listen address is always one of them.
	Hostnames []string `yaml:"hostnames" help:"registry names that mean this server, as image references write them"`
	// URL under which clients reach this server, https://HOST or https://HOST:PORT.
	// Empty: https:// and the first of hostnames, else the listen address.
	ExternalURL string `yaml:"external-url" help:"URL under which clients reach this server, for example https://registry.example.com"`
	// Policy files and directories that are loaded at start, besides those
	// that were put by the API.
	Policy []string `yaml:"policy" help:"policy files and directories to load at start"`
	// Key services that policies may name in key.kms, by their schemes (awskms,
	// hashivault). Each is asked through its plugin program, sigstore-kms-NAME, on PATH.
	PolicyKeyServices []string `yaml:"policy-key-services" help:"key services that policies may name in key.kms, by scheme, for example awskms"`
	// What happens to an image that no image policy matches: deny, warn or allow.
	NoMatch string `yaml:"no-match" help:"what happens to an image that no image policy matches: deny, warn or allow"`
	// Names under which the admission webhook's own certificate is valid,
	// besides localhost and the loopback addresses.
	AdmissionNames []string `yaml:"admission-names" help:"more names for the webhook's certificate, for example gatehouse.gatehouse.svc"`
	// Certificate for admission-listen, a PEM file, where something else
	// (cert-manager) issues it. Empty: the server makes its own, of a CA in the
	// data directory, and renews it 30 days before it ends.
	AdmissionTLSCert string `yaml:"admission-tls-cert" help:"certificate of --admission-listen, a PEM file; empty: the server makes its own"`
	// Key of admission-tls-cert. Both or none; read again when they change.
	AdmissionTLSKey string `yaml:"admission-tls-key" help:"its key, a PEM file"`
	// Images (sha256:…) that other doors than the webhooks let through unasked, beside
	// the sandbox of Pods (pause 3.9, 3.10, 3.10.1), whose digests are known: Gatehouse's
	// own image belongs here where a node or an ImagePolicyWebhook asks it.
	AdmissionAlwaysDigests []string `yaml:"admission-always-digests" help:"images (sha256:…) that /image-review and /external-data let through unasked"`
	// Policies of objects (Rego modules by PACKAGE, constraints by name) that other doors
	// than the webhooks ask, too: about a Pod that runs the images and says nothing else. One
	// that wants more of a Pod than its images denies everything there.
	AdmissionDoorPolicies []string `yaml:"admission-door-policies" help:"Rego modules and constraints that /image-review and /external-data ask about a Pod of the images alone"`
	// How long reviews are kept, so that gatehouse policy simulate can judge them again
	// by other policies: objects as the API server sends them, without status and without
	// the values of environment variables and options that are secret by their names, and
	// no Secrets. 0 keeps none.
	AdmissionRecord time.Duration `yaml:"admission-record" help:"how long reviews are kept for gatehouse policy simulate; 0 keeps none"`
	// Which objects the mutating webhook writes digests into, beside the tags: pods,
	// all (also Deployments and everything else with a Pod template, which tools that
	// compare with a repository will want to undo), or off.
	AdmissionMutate string `yaml:"admission-mutate" help:"where the webhook writes digests beside tags: pods, all or off"`
	// How old facts about an image may be that are judged by, with a warning, while its
	// registry or the database does not answer. Tags are never resolved from them.
	// 0 denies at once.
	AdmissionMaxStale time.Duration `yaml:"admission-max-stale" help:"how old facts may be while a registry does not answer; 0 denies at once"`
	// Namespaces whose objects are admitted unjudged: those that the cluster needs to
	// start, and the one that Gatehouse itself runs in. The webhook configurations that
	// the server keeps spare them, and with kubeconfig always our own namespace and that
	// of webhook-service.
	AdmissionExemptNamespaces []string `yaml:"admission-exempt-namespaces" help:"namespaces whose objects are admitted unjudged"`
	// Where custom resources keep Pod templates, Pod specs, containers or images, for
	// resources that the webhook does not know: KIND.GROUP=PATH each, with [*] for
	// each item of a list and * for each value of an object, for example
	// Fleet.example.com=spec.groups[*].template.
	AdmissionTemplates []string `yaml:"admission-templates" help:"where custom resources keep Pod templates: KIND.GROUP=PATH"`

	// For gatehouse admission in another cluster: the server whose images are judged, as
	// https://HOST or https://HOST:PORT. What it says of them is kept in the data
	// directory, signatures are verified here, and decisions go on for
	// admission-max-stale while it is away. Its account is that of registry-login-file.
	FactsServer string `yaml:"facts-server" help:"server whose signed facts gatehouse admission follows (https://HOST[:PORT])"`
	// File with the public keys (PEM) that the server signs what it says with, any one of
	// which counts: the answer of GET /api/v1/facts/key, fetched over a way that you trust.
	FactsKey string `yaml:"facts-key" help:"file with the public keys that the server signs facts with, PEM"`
	// File with the certificate authority of the server, PEM. Empty: those that the
	// machine trusts.
	FactsCA string `yaml:"facts-ca" help:"file with the certificate authority of --facts-server, PEM; empty is the machine's"`

	// The Kubernetes cluster that the server works for: the path of a kubeconfig file,
	// of which the current context counts, or in-cluster for the service account of the
	// pod that it runs in. Policies of the cluster count beside those of policy and of the
	// API, and namespaces are known. Empty: no cluster.
	Kubeconfig string `yaml:"kubeconfig" help:"Kubernetes cluster to work for: a kubeconfig file, or in-cluster; empty is none"`
	// Namespace of the cluster that is ours: the webhook's certificate lies there, and
	// the Secrets and ConfigMaps that policies refer to. Empty: that of the pod, else
	// gatehouse.
	ClusterNamespace string `yaml:"cluster-namespace" help:"namespace of the cluster that is ours; empty is that of the pod, else gatehouse"`
	// Keep in the cluster what belongs to us: custom resource definitions, the webhook
	// configurations and their certificate, the fallback policy, the status of policies.
	// Of several replicas one does it. false where gatehouse operator does.
	ClusterManage bool `yaml:"cluster-manage" help:"keep definitions, webhook configurations and the fallback policy in the cluster"`
	// Name of a ClusterRole that everything we make in the cluster goes away with. The
	// chart sets it, so that no webhook configuration stays when the chart is removed.
	ClusterOwner string `yaml:"cluster-owner" help:"ClusterRole that everything we make in the cluster goes away with"`
	// Service by which the cluster reaches the webhook: NAMESPACE/NAME or
	// NAMESPACE/NAME:PORT (443). With it, or webhook-url, the server makes the webhook
	// configurations as soon as it is ready, never before, and keeps them as they are.
	WebhookService string `yaml:"webhook-service" help:"Service by which the cluster reaches the webhook: NAMESPACE/NAME[:PORT]"`
	// URL by which the cluster reaches the webhook, where that is no Service:
	// https://HOST[:PORT].
	WebhookURL string `yaml:"webhook-url" help:"URL by which the cluster reaches the webhook, where that is no Service"`
	// What the API server does when the webhook does not answer: fail (it denies) or
	// ignore.
	WebhookFailurePolicy string `yaml:"webhook-failure-policy" help:"what the cluster does when the webhook does not answer: fail or ignore"`
	// How long the API server waits for the webhook, 1s to 30s.
	WebhookTimeout time.Duration `yaml:"webhook-timeout" help:"how long the API server waits for the webhook"`
	// Label selector of the namespaces that the webhook sees, for example
	// policy.sigstore.dev/include=true. Empty: all. Whoever may label a namespace can then
	// take it out.
	WebhookNamespaces string `yaml:"webhook-namespaces" help:"label selector of the namespaces that the webhook sees; empty is all"`
	// More resources that the webhook is asked about, for policies of other kinds than
	// Pods and what holds their templates: GROUP/RESOURCE each, or RESOURCE of the core
	// group (services, networking.k8s.io/ingresses, */*).
	WebhookResources []string `yaml:"webhook-resources" help:"more resources that the webhook is asked about, for example networking.k8s.io/ingresses"`
	// How long a new authority of the webhook's certificate is announced before a
	// certificate of it is used, and the old one trusted afterwards: every API server
	// must have heard of it.
	WebhookOverlap time.Duration `yaml:"webhook-overlap" help:"how long a new authority of the webhook is announced before it is used"`
	// Keep a ValidatingAdmissionPolicy in the cluster that refuses images of registries
	// that no policy allows. It holds while no replica runs.
	FallbackPolicy bool `yaml:"fallback-policy" help:"keep a ValidatingAdmissionPolicy that holds while no replica runs"`
	// Judge again what runs in the cluster whenever a policy, a signature, an advisory,
	// an exception or a namespace changes. It tells; it stops nothing.
	RunningAudit bool `yaml:"running-audit" help:"judge again what runs in the cluster, and tell what would not be admitted now"`
	// Where it is told: auto writes a PolicyReport (wgpolicyk8s.io) and a Report
	// (openreports.io) into each namespace, whichever of the two the cluster knows; off
	// writes none.
	RunningReports string `yaml:"running-reports" help:"reports of what runs: auto, of each kind that the cluster knows, or off"`
	// Write an Event about each workload whose verdict has become another one.
	RunningEvents bool `yaml:"running-events" help:"write Events about workloads whose verdict changes"`

	// Addresses (CIDR) in private ranges that the server may contact when an
	// image reference, a redirect or a feed names them.
	AllowPrivate []string `yaml:"allow-private" help:"private address ranges that image references may lead to, for example 10.1.0.0/16"`
	// The other registries that the server may contact, as image references
	// write them (docker.io, ghcr.io, registry.example:5000; *.example.com is
	// every name below). Empty: every one that a policy needs to ask.
	AllowRegistries []string `yaml:"allow-registries" help:"other registries that may be contacted, for example ghcr.io; empty is all"`

	// File with the logins for other registries, as docker login and podman login
	// write it, or a mounted Kubernetes secret of type kubernetes.io/dockerconfigjson.
	// It is read again whenever a login is needed; credential helpers are programs and
	// are not run. Empty: other registries are asked without a name.
	RegistryLoginFile string `yaml:"registry-login-file" help:"file with logins for other registries, as docker login writes it"`

	// Feeds of advisories that the server looks at by itself: trivy-db, osv,
	// osv/ECOSYSTEM, nvd, nvd/YEAR, kev, epss, each with =URL behind it for a mirror;
	// or gatehouse=HOST/NAME:TAG alone, the whole database that another Gatehouse
	// pushes there (docs/advisories.md). Empty: it asks nobody, and has what is
	// imported.
	Feeds []string `yaml:"feeds" help:"feeds of advisories to keep fresh, for example trivy-db,kev,epss; empty asks nobody"`
	// How often the feeds are looked at. What has not changed is not fetched
	// again; a feed that fails is asked sooner, with growing pauses.
	FeedInterval time.Duration `yaml:"feed-interval" help:"how often the feeds are looked at"`
	// Repositories of Trivy's database, tried in turn. Empty:
	// mirror.gcr.io/aquasec/trivy-db:2, then ghcr.io/aquasecurity/trivy-db:2. The
	// server's own name is read here and not over the network.
	DBRepository []string `yaml:"db-repository" help:"repositories of Trivy's database, tried in turn"`
	// Attach a bill of materials (SPDX and CycloneDX) to every image that is
	// pushed, as referrers that clients can pull.
	SBOMReferrers bool `yaml:"sbom-referrers" help:"attach bills of materials to every image, as referrers"`
	// Attach a signed attestation of the vulnerabilities that were found (type vuln
	// of cosign) to every image, and replace it each time that the verdict changes.
	// GET /api/v1/scan-attestations/key has the key that verifies it.
	ScanAttestations bool `yaml:"scan-attestations" help:"attach a signed attestation of its vulnerabilities to every image"`
	// The clamd of a ClamAV that every executable, script and archive in the
	// images is shown to: tcp://HOST:3310 or unix:/run/clamav/clamd.ctl. Its
	// connection is neither encrypted nor authenticated. Empty: none.
	Clamd string `yaml:"clamd" help:"clamd that looks for malware: tcp://HOST:PORT or unix:PATH"`
	// Files that list malware, a sha256 and a name per line, which are read at
	// start. Lists that were put by the API stay besides.
	MalwareLists []string `yaml:"malware-lists" help:"files that list malware, a sha256 and a name per line"`

	// Licences (SPDX ids, or the text that packages have) that are of another class
	// here than by default: forbidden (CRITICAL), restricted (HIGH), reciprocal
	// (MEDIUM), notice, permissive or unencumbered (LOW). An id without -only or
	// -or-later means both.
	LicenseForbidden []string `yaml:"license-forbidden" help:"licences of the class forbidden, for example SSPL-1.0"`
	// Licences of the class restricted.
	LicenseRestricted []string `yaml:"license-restricted" help:"licences of the class restricted"`
	// Licences of the class reciprocal.
	LicenseReciprocal []string `yaml:"license-reciprocal" help:"licences of the class reciprocal"`
	// Licences of the class notice.
	LicenseNotice []string `yaml:"license-notice" help:"licences of the class notice"`
	// Licences of the class permissive.
	LicensePermissive []string `yaml:"license-permissive" help:"licences of the class permissive"`
	// Licences of the class unencumbered.
	LicenseUnencumbered []string `yaml:"license-unencumbered" help:"licences of the class unencumbered"`
	// Licences that are no findings.
	IgnoredLicenses []string `yaml:"ignored-licenses" help:"licences that are no findings"`

	// Serve the scanner API of Harbor under /scanner/api/v1, so that a Harbor can use
	// this server as its scanner. Needs scanner-adapter-token and
	// scanner-adapter-registries.
	ScannerAdapter bool `yaml:"scanner-adapter" help:"be a scanner for Harbor, under /scanner/api/v1"`
	// What callers of the scanner API must know, 16 characters at least. It also
	// protects the credentials of scans that wait. Better kept in
	// scanner-adapter-token-file.
	ScannerAdapterToken string `yaml:"scanner-adapter-token" help:"token that callers of the scanner API must know"`
	// File that holds the value of scanner-adapter-token. Only one of the two may
	// be set.
	ScannerAdapterTokenFile string `yaml:"scanner-adapter-token-file" help:"file that holds the value of --scanner-adapter-token"`
	// Registries whose images may be scanned for others, as their scan requests
	// write them: HOST or HOST:PORT, with http:// before it where there is no TLS.
	// One in a private range needs allow-private besides.
	ScannerAdapterRegistries []string `yaml:"scanner-adapter-registries" help:"registries whose images the scanner API may read, for example harbor.example.com"`
	// Another scanner that is asked about every image: harbor+https://HOST/PATH, a
	// scanner adapter as Harbor knows them, or clair+https://HOST/PATH, a Clair v4.
	// What it finds is shown beside the findings and changes none. Empty: none.
	SecondOpinion string `yaml:"second-opinion" help:"another scanner to compare with: harbor+https://HOST or clair+https://HOST"`
	// What the other scanner wants to know: USER:PASSWORD or a token, of a Clair the
	// base64 of its pre-shared key. Better kept in second-opinion-token-file.
	SecondOpinionToken string `yaml:"second-opinion-token" help:"what the other scanner wants to know of its callers"`
	// File that holds the value of second-opinion-token. Only one of the two may
	// be set.
	SecondOpinionTokenFile string `yaml:"second-opinion-token-file" help:"file that holds the value of --second-opinion-token"`
	// URL under which the other scanner reaches this registry. Empty:
	// https://HOST with the first of hostnames, else the listen address.
	SecondOpinionRegistry string `yaml:"second-opinion-registry" help:"URL under which the other scanner reaches this registry"`

	// Be a private Sigstore: a certificate authority (Fulcio), a transparency log
	// (Rekor), a timestamp authority, and the TUF repository that tells stock clients
	// of them. docs/sigstore.md has the rest.
	Sigstore bool `yaml:"sigstore" help:"be a private Sigstore: certificate authority, log, timestamps and TUF repository"`
	// The issuers whose identity tokens get certificates: KIND+https://HOST/PATH with
	// audience, domain, base, jwks, ca and token as options, where KIND is email,
	// kubernetes, github, gitlab, spiffe, uri or username. github, gitlab and
	// kubernetes alone are the usual ones.
	SigstoreIssuers []string `yaml:"sigstore-issuers" help:"issuers whose identity tokens get certificates, for example github or kubernetes+https://HOST"`
	// Witnesses that cosign the log of the private Sigstore before a checkpoint is
	// out: KEY URL each, as gatehouse sigstore witness prints its key.
	SigstoreWitnesses []string `yaml:"sigstore-witnesses" help:"witnesses that cosign the log of the private Sigstore, each as KEY URL"`
	// Take entries of the log from those only who are known: whose certificate, still
	// valid, is of the own authority, or whose key is one of sigstore-log-keys.
	SigstoreLogKnownOnly bool `yaml:"sigstore-log-known-only" help:"take entries of the log only with own certificates or with keys of --sigstore-log-keys"`
	// Files with public keys (PEM, as cosign.pub) whose entries are those of somebody
	// who is known, as with a certificate of the own authority.
	SigstoreLogKeys []string `yaml:"sigstore-log-keys" help:"files with public keys whose owners are known to the log"`
	// Most bytes that may be added to the log per day, on each replica: by those who
	// are known, and by all others besides. As much may come at once; it grows back
	// over the day. 0 is no limit.
	SigstoreLogBudget int64 `yaml:"sigstore-log-budget" help:"most bytes per day that the log takes, for example 256MiB; 0 is no limit"`
	// Most bytes of it that one address (IPv4, or /64 of IPv6) may add. 0 is no limit.
	SigstoreLogAddressBudget int64 `yaml:"sigstore-log-address-budget" help:"most bytes per day that the log takes from one address; 0 is no limit"`
	// Key that seals the keys of the private Sigstore instead of a passphrase, as
	// gatehouse sign --key names it: SCHEME://… of a key service, through Sigstore's
	// plugin program on PATH. Its signatures must be the same each time, as those of
	// RSA (PKCS #1 v1.5) and Ed25519 are.
	SigstoreSealKey string `yaml:"sigstore-seal-key" help:"key of a key service that seals the keys of the private Sigstore, for example awskms:///alias/x"`
	// Passphrase that seals the keys of the private Sigstore, 16 characters at least.
	// Better kept in sigstore-passphrase-file. Empty: with SQLite one is made in the
	// data directory (keys/sigstore-passphrase); with PostgreSQL it must be set, or
	// sigstore-seal-key.
	SigstorePassphrase string `yaml:"sigstore-passphrase" help:"passphrase that seals the keys of the private Sigstore"`
	// File that holds the value of sigstore-passphrase. Only one of the two may be
	// set.
	SigstorePassphraseFile string `yaml:"sigstore-passphrase-file" help:"file that holds the value of --sigstore-passphrase"`

	// Age from which a blob or manifest that nothing refers to may be collected.
	GCGrace time.Duration `yaml:"gc-grace" help:"age from which a blob or manifest that nothing refers to is collected"`
	// How long after its collection the bytes of a blob stay in storage, for
	// pulls that have begun.
	GCTombstone time.Duration `yaml:"gc-tombstone" help:"how long the bytes of a collected blob stay in storage"`
	// Collect manifests that no tag leads to. false keeps them for ever.
	GCUntagged bool `yaml:"gc-untagged" help:"collect manifests that no tag leads to"`
	// How long the manifest of a deleted or moved tag is kept, so that the tag
	// can be restored.
	TagRestore time.Duration `yaml:"tag-restore" help:"how long a deleted or moved tag can be restored"`
	// Period within which every blob is read and hashed once. 0 turns it off.
	ScrubPeriod time.Duration `yaml:"scrub-period" help:"period within which every blob is hashed again; 0 turns it off"`
	// Most bytes per second that the scrub reads (50MiB). 0 is no limit.
	ScrubRate int64 `yaml:"scrub-rate" help:"most bytes per second that the scrub reads, for example 50MiB; 0 is no limit"`

	// File that gets the base URL once the server answers.
	ReadyFile string `yaml:"ready-file" help:"write the base URL to this file once the server answers"`
	// debug, info, warn or error.
	LogLevel string `yaml:"log-level" help:"debug, info, warn or error"`
	// text or json.
	LogFormat string `yaml:"log-format" help:"text or json"`
	// Which requests get a line in the log: all, errors (status 400 and above)
	// or off. Those of /healthz, /readyz and /metrics have one at level debug.
	AccessLog string `yaml:"access-log" help:"requests that get a line in the log: all, errors or off"`
	// URL of an OpenTelemetry collector that takes OTLP over HTTP, for example
	// http://collector:4318; /v1/traces is added where there is no path. Empty
	// turns tracing off. Headers come from OTEL_EXPORTER_OTLP_HEADERS.
	TraceEndpoint string `yaml:"trace-endpoint" help:"OpenTelemetry collector (OTLP over HTTP), for example http://collector:4318"`
	// Share of the requests that start a trace, 0 to 1. A request that brings a
	// trace is traced if its sender does so.
	TraceRatio float64 `yaml:"trace-ratio" help:"share of the requests that start a trace, 0 to 1"`
}

// Default returns the documented defaults.
func Default() Config {
	const day = 24 * time.Hour
	return Config{
		Data: "./gatehouse-data", Listen: "127.0.0.1:5000", AdmissionListen: "127.0.0.1:8443",
		MaxConnections: 8192, DrainTime: 20 * time.Second, NoMatch: "deny", AdmissionRecord: 7 * day,
		AdmissionMutate: "pods", AdmissionMaxStale: day, AdmissionExemptNamespaces: []string{"kube-system"},
		ClusterManage: true, WebhookFailurePolicy: "fail", WebhookTimeout: 10 * time.Second, WebhookOverlap: 5 * time.Minute,
		FallbackPolicy: true, RunningAudit: true, RunningReports: "auto", RunningEvents: true,
		FeedInterval: 6 * time.Hour, SBOMReferrers: true, SigstoreLogBudget: 256 << 20, SigstoreLogAddressBudget: 32 << 20,
		GCGrace: day, GCTombstone: 10 * time.Minute, GCUntagged: true, TagRestore: 14 * day,
		ScrubPeriod: 30 * day, ScrubRate: 20 << 20,
		LogLevel: "info", LogFormat: "text", AccessLog: "all", TraceRatio: 1,
	}
}

// Keys lists every key in the order of the struct.
func Keys() []string {
	t := reflect.TypeFor[Config]()
	out := make([]string, t.NumField())
	for i := range out {
		out[i] = t.Field(i).Tag.Get("yaml")
	}
	return out
}

// EnvName is the environment variable of a key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(key))
}
