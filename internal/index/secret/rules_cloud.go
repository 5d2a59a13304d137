package secret

import "github.com/gatehouse-dev/gatehouse"

const (
	critical = gatehouse.SeverityCritical
	high     = gatehouse.SeverityHigh
	medium   = gatehouse.SeverityMedium
	low      = gatehouse.SeverityLow
)

// cloudRules are keys of clouds and hosting, in the forms that their providers
// document. The first rule that matches a place names it: narrow ones come first.
func cloudRules() []rule {
	return []rule{
		token("aws-access-key-id", "AWS access key ID", critical, base32, 16, 16, "AKIA", "ASIA", "ABIA", "ACCA"),
		beside("aws-secret-access-key", "AWS secret access key", critical, `[A-Za-z0-9/+]{40}`,
			"secret_access_key", "secretaccesskey", "secret-access-key", "aws_secret_key", "awssecretkey", "aws_secret").withEntropy(3.5),
		beside("aws-session-token", "AWS session token", high, `[A-Za-z0-9/+=]{100,}`, "aws_session_token", "awssessiontoken").window(0, 1200),
		token("aws-bedrock-api-key", "AWS Bedrock API key", critical, base64, 100, 300, "ABSKQmVkcm9ja0FQSUtleS"),
		shaped("aws-mws-auth-token", "Amazon MWS authorization token", high, `amzn\.mws\.[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}`, "amzn.mws."),

		token("gcp-api-key", "Google API key", high, urlSafe, 35, 35, "AIza"),
		token("gcp-oauth-client-secret", "Google OAuth client secret", high, urlSafe, 28, 28, "GOCSPX-"),
		token("gcp-oauth-access-token", "Google OAuth access token", medium, urlSafe, 40, 400, "ya29."),

		shaped("azure-storage-key", "Azure storage or Cosmos DB account key", critical, `AccountKey=[A-Za-z0-9+/]{86}==`, "AccountKey="),
		shaped("azure-shared-access-key", "Azure Service Bus or Event Hubs shared access key", high, `SharedAccessKey=[A-Za-z0-9+/]{43}=`, "SharedAccessKey="),
		shaped("azure-sas-token", "Azure shared access signature", high, `sig=[A-Za-z0-9%]{40,60}%3[dD]`, "sig="),
		beside("azure-client-secret", "Azure Entra ID client secret", critical, `[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}`,
			"client_secret", "clientsecret", "client-secret", "azure"),
		beside("azure-devops-pat", "Azure DevOps personal access token", high, `[a-z2-7]{52}|[A-Za-z0-9]{75}AZDO[A-Za-z0-9]{5}`, "azure_devops", "azdo", "vsts", "system_accesstoken"),
		around("azure-container-registry-password", "Azure container registry password", high, `[A-Za-z0-9/+]{42}\+ACR[A-D][A-Za-z0-9]{6}`, 43, "+ACR"),

		token("digitalocean-token", "DigitalOcean access token", critical, hexLower, 64, 64, "dop_v1_", "doo_v1_", "dor_v1_"),
		token("alibaba-access-key-id", "Alibaba Cloud access key ID", high, alnum, 12, 20, "LTAI"),
		beside("alibaba-secret-key", "Alibaba Cloud access key secret", critical, `[A-Za-z0-9]{30}`, "alibaba", "aliyun", "alicloud"),
		token("tencent-secret-id", "Tencent Cloud secret ID", high, alnum, 32, 32, "AKID"),
		token("yandex-api-key", "Yandex Cloud API key", high, urlSafe, 35, 38, "AQVN"),
		token("yandex-access-secret", "Yandex Cloud static access secret", medium, urlSafe, 38, 38, "YCO", "YCM", "YCN", "YCP"),
		shaped("ibm-cloud-api-key", "IBM Cloud API key", high, `ApiKey-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}`, "ApiKey-"),
		beside("ibm-cloud-iam-key", "IBM Cloud IAM API key", high, `[A-Za-z0-9_-]{44}`, "ibmcloud_api", "ibm_cloud", "bluemix_api"),
		beside("scaleway-secret-key", "Scaleway secret key", high, uuid, "scw_secret", "scaleway"),
		beside("linode-token", "Linode access token", high, `[0-9a-f]{64}`, "linode"),
		beside("hetzner-token", "Hetzner Cloud API token", high, `[A-Za-z0-9]{64}`, "hcloud_token", "hetzner"),
		beside("vultr-api-key", "Vultr API key", high, `[A-Z0-9]{36}`, "vultr"),
		beside("ovh-secret", "OVH application secret", high, `[A-Za-z0-9]{32}`, "ovh_application_secret", "ovh_consumer_key"),
		shaped("heroku-api-key", "Heroku API key", high, `HRKU-(?:AA[0-9A-Za-z_-]{58}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})`, "HRKU-"),
		beside("heroku-api-key-legacy", "Heroku API key", high, uuid, "heroku"),
		token("flyio-token", "Fly.io access token", high, urlSafe, 43, 43, "fo1_"),
		shaped("flyio-macaroon", "Fly.io access token", high, `fm[12][ar]?_[A-Za-z0-9+/_-]{100,450}={0,3}`, "fm1_", "fm1a_", "fm1r_", "fm2_"),
		token("netlify-token", "Netlify access token", high, alnum, 36, 40, "nfp_", "nfc_", "nfo_", "nfu_"),
		beside("vercel-token", "Vercel access token", high, `[A-Za-z0-9]{24}`, "vercel_token", "vercel_access"),
		token("render-api-key", "Render API key", high, alnum, 28, 32, "rnd_"),
		beside("railway-token", "Railway token", medium, uuid, "railway_token"),
		token("cloudflare-origin-ca-key", "Cloudflare origin CA key", critical, newAlphabet(digits, "abcdef-"), 165, 180, "v1.0-"),
		beside("cloudflare-api-token", "Cloudflare API token", high, `[A-Za-z0-9_-]{40}`, "cloudflare", "cf_api_token").withEntropy(3.5),
		beside("cloudflare-global-key", "Cloudflare global API key", critical, `[0-9a-f]{37}`, "cloudflare", "cf_api_key"),
		beside("fastly-token", "Fastly API token", high, `[A-Za-z0-9_-]{32}`, "fastly").withEntropy(3.5),
		beside("akamai-secret", "Akamai client secret", high, `[A-Za-z0-9+/=]{44}`, "akamai"),

		around("terraform-cloud-token", "Terraform Cloud token", critical, `[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}`, 15, ".atlasv1."),
		token("vault-service-token", "HashiCorp Vault token", critical, urlSafe, 24, 300, "hvs.", "hvb.", "hvr."),
		beside("vault-token-legacy", "HashiCorp Vault token", high, `s\.[A-Za-z0-9]{24}`, "vault"),
		beside("consul-token", "HashiCorp Consul token", high, uuid, "consul_http_token", "consul_token"),
		token("pulumi-access-token", "Pulumi access token", high, hexLower, 40, 40, "pul-"),
		token("doppler-token", "Doppler token", critical, alnum, 40, 44, "dp.pt.", "dp.ct.", "dp.sa.", "dp.said.", "dp.scim.", "dp.audit."),
		shaped("doppler-service-token", "Doppler service token", critical, `dp\.st\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}`, "dp.st."),
		token("onepassword-service-token", "1Password service account token", critical, base64, 250, 2000, "ops_eyJ"),
		shaped("onepassword-secret-key", "1Password secret key", high, `A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}`, "A3-").followedBy(alnumUp).dot(9, '-'),
		shaped("infisical-token", "Infisical service token", high, `st\.[0-9a-f]{24}\.[0-9a-f]{32}\.[0-9a-f]{32}`, "st.").followedBy(hexLower).dot(27, '.'),
		token("tailscale-key", "Tailscale key", high, dashed, 17, 60, "tskey-auth-", "tskey-api-", "tskey-client-", "tskey-scim-", "tskey-webhook-"),
		beside("ngrok-token", "ngrok authtoken", medium, `[0-9A-Za-z]{27}_[0-9A-Za-z]{21}`, "ngrok", "authtoken"),
		token("planetscale-token", "PlanetScale credential", high, dotted, 32, 64, "pscale_pw_", "pscale_tkn_", "pscale_oauth_"),
		token("supabase-token", "Supabase secret key", high, urlSafe, 31, 60, "sbp_", "sb_secret_"),
		token("neon-api-key", "Neon API key", high, alnumLow, 60, 70, "napi_"),
		beside("mongodb-atlas-key", "MongoDB Atlas private key", high, uuid, "atlas_private_key", "mongodb_atlas"),
		token("databricks-token", "Databricks access token", high, newAlphabet(digits, "abcdef-"), 32, 34, "dapi"),
		beside("snowflake-password", "Snowflake password", high, `[^\s"'\x60;,<>&\\]{8,64}`, "snowflake_password", "snowsql_pwd"),
		beside("confluent-secret", "Confluent API secret", high, `[A-Za-z0-9+/]{64}`, "confluent"),
		token("aiven-service-password", "Aiven service password", high, urlSafe, 16, 32, "AVNS_"),
		beside("kubernetes-bootstrap-token", "Kubernetes bootstrap token", high, `[a-z0-9]{6}\.[a-z0-9]{16}`, "token", "kubeadm").in(isKubernetes),
	}
}

const uuid = `[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}`

var dashed = newAlphabet(digits, lower, upper, "-")
