package cip

// The manifest as it is decoded after its grammar has been checked.

type document struct {
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec spec `yaml:"spec"`
}

type spec struct {
	Images []struct {
		Glob string `yaml:"glob"`
	} `yaml:"images"`
	Authorities []authority `yaml:"authorities"`
	Policy      *policyRef  `yaml:"policy"`
	Mode        string      `yaml:"mode"`
	Match       []match     `yaml:"match"`
}

type authority struct {
	Name    string   `yaml:"name"`
	Key     *keyRef  `yaml:"key"`
	Keyless *keyless `yaml:"keyless"`
	Static  *static  `yaml:"static"`
	Source  []source `yaml:"source"`
	CTLog   *struct {
		URL          string `yaml:"url"`
		TrustRootRef string `yaml:"trustRootRef"`
	} `yaml:"ctlog"`
	Attestations []attestation `yaml:"attestations"`
	Timestamp    *struct {
		TrustRootRef string `yaml:"trustRootRef"`
	} `yaml:"rfc3161timestamp"`
	SignatureFormat string `yaml:"signatureFormat"`
}

type source struct {
	OCI                  string `yaml:"oci"`
	SignaturePullSecrets []struct {
		Name string `yaml:"name"`
	} `yaml:"signaturePullSecrets"`
	TagPrefix string `yaml:"tagPrefix"`
}

type attestation struct {
	Name          string     `yaml:"name"`
	PredicateType string     `yaml:"predicateType"`
	Policy        *policyRef `yaml:"policy"`
}

type keyRef struct {
	SecretRef     *secretRef `yaml:"secretRef"`
	Data          string     `yaml:"data"`
	KMS           string     `yaml:"kms"`
	HashAlgorithm string     `yaml:"hashAlgorithm"`
}

type secretRef struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

type keyless struct {
	URL        string `yaml:"url"`
	Identities []struct {
		Issuer        string `yaml:"issuer"`
		Subject       string `yaml:"subject"`
		IssuerRegExp  string `yaml:"issuerRegExp"`
		SubjectRegExp string `yaml:"subjectRegExp"`
	} `yaml:"identities"`
	CACert       *keyRef `yaml:"ca-cert"`
	TrustRootRef string  `yaml:"trustRootRef"`
	IgnoreSCT    bool    `yaml:"insecureIgnoreSCT"`
}

type static struct {
	Action  string `yaml:"action"`
	Message string `yaml:"message"`
}

type policyRef struct {
	Type   string `yaml:"type"`
	Data   string `yaml:"data"`
	Remote *struct {
		URL       string `yaml:"url"`
		Sha256sum string `yaml:"sha256sum"`
	} `yaml:"remote"`
	ConfigMapRef      *configMapRef `yaml:"configMapRef"`
	FetchConfigFile   *bool         `yaml:"fetchConfigFile"`
	IncludeSpec       *bool         `yaml:"includeSpec"`
	IncludeObjectMeta *bool         `yaml:"includeObjectMeta"`
	IncludeTypeMeta   *bool         `yaml:"includeTypeMeta"`
}

type configMapRef struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
	Key       string `yaml:"key"`
}

type match struct {
	Group    string `yaml:"group"`
	Version  string `yaml:"version"`
	Resource string `yaml:"resource"`
	Selector *struct {
		MatchLabels      map[string]string `yaml:"matchLabels"`
		MatchExpressions []struct {
			Key      string   `yaml:"key"`
			Operator string   `yaml:"operator"`
			Values   []string `yaml:"values"`
		} `yaml:"matchExpressions"`
	} `yaml:"selector"`
}
