package secret

// codeRules are tokens of code hosting, continuous integration and what
// developers work with.
func codeRules() []rule {
	return []rule{
		token("github-pat", "GitHub personal access token", critical, alnum, 36, 36, "ghp_"),
		token("github-fine-grained-pat", "GitHub fine-grained personal access token", critical, underline, 82, 82, "github_pat_"),
		token("github-oauth-token", "GitHub OAuth access token", critical, alnum, 36, 36, "gho_"),
		token("github-app-token", "GitHub app token", critical, alnum, 36, 36, "ghu_", "ghs_"),
		token("github-refresh-token", "GitHub refresh token", critical, alnum, 36, 76, "ghr_"),
		token("gitlab-pat", "GitLab personal access token", critical, dotted, 20, 80, "glpat-"),
		token("gitlab-token", "GitLab token", critical, dotted, 20, 80,
			"gldt-", "glrt-", "glcbt-", "glsoat-", "glft-", "glimt-", "glagent-", "glffct-", "gloas-", "glwt-"),
		token("gitlab-trigger-token", "GitLab pipeline trigger token", high, hexLower, 40, 40, "glptt-"),
		token("gitlab-runner-registration-token", "GitLab runner registration token", high, urlSafe, 20, 20, "GR1348941"),
		token("bitbucket-app-password", "Bitbucket app password", high, alnum, 32, 32, "ATBB"),
		token("bitbucket-access-token", "Bitbucket repository access token", high, newAlphabet(digits, lower, upper, "_-="), 150, 250, "ATCTT3xFfG"),
		token("atlassian-api-token", "Atlassian API token", high, newAlphabet(digits, lower, upper, "_-="), 170, 250, "ATATT3xFfG"),
		beside("atlassian-api-token-legacy", "Atlassian API token", high, `[A-Za-z0-9]{24}`, "atlassian", "jira_api", "confluence_api"),
		beside("gitea-token", "Gitea access token", high, `[0-9a-f]{40}`, "gitea", "forgejo"),

		shaped("circleci-token", "CircleCI personal access token", high, `CCIP(?:AT|RJ)_[A-Za-z0-9]{22}_[0-9a-f]{40}`, "CCIPAT_", "CCIPRJ_"),
		beside("circleci-token-legacy", "CircleCI API token", high, `[0-9a-f]{40}`, "circle_token", "circleci"),
		beside("travis-token", "Travis CI access token", medium, `[A-Za-z0-9_-]{22}`, "travis_token", "travis_ci").withEntropy(3.2),
		token("buildkite-token", "Buildkite token", high, hexLower, 40, 40, "bkua_"),
		token("buildkite-agent-token", "Buildkite agent token", high, alnum, 40, 60, "bkct_", "bkaj_"),
		beside("jenkins-token", "Jenkins API token", high, `11[0-9a-f]{32}`, "jenkins"),
		beside("drone-token", "Drone CI token", medium, `[A-Za-z0-9]{32}`, "drone_token", "droneci"),
		beside("codecov-token", "Codecov upload token", medium, uuid, "codecov"),
		token("sonarqube-token", "SonarQube or SonarCloud token", medium, hexLower, 40, 40, "sqp_", "squ_", "sqa_"),
		token("sourcegraph-token", "Sourcegraph access token", high, newAlphabet(digits, "abcdef_"), 40, 60, "sgp_", "slk_"),
		beside("snyk-token", "Snyk API token", high, uuid, "snyk"),
		shaped("harness-token", "Harness access token", high, `[ps]at\.[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}`, "pat.", "sat.").dot(26, '.'),
		token("octopus-deploy-key", "Octopus Deploy API key", high, alnumUp, 25, 32, "API-"),
		shaped("launchdarkly-sdk-key", "LaunchDarkly SDK key", medium, `sdk-`+uuid, "sdk-"),
		beside("launchdarkly-access-token", "LaunchDarkly access token", high, `(?:api-)?[0-9a-f-]{36,40}`, "launchdarkly", "ld_access"),
		token("prefect-token", "Prefect API key", medium, alnum, 36, 36, "pnu_", "pnb_"),
		shaped("postman-api-key", "Postman API key", high, `PMAK-[0-9a-f]{24}-[0-9a-f]{34}`, "PMAK-"),
		token("readme-api-key", "ReadMe API key", medium, alnumLow, 70, 70, "rdme_"),
		token("figma-token", "Figma personal access token", medium, urlSafe, 38, 46, "figd_"),
		token("linear-api-key", "Linear API key", medium, alnum, 40, 48, "lin_api_", "lin_oauth_"),
		token("notion-token", "Notion integration token", high, alnum, 43, 50, "ntn_", "secret_"),
		shaped("airtable-token", "Airtable personal access token", high, `pat[A-Za-z0-9]{14}\.[0-9a-f]{64}`, "pat").followedBy(alnum).dot(17, '.'),
		beside("asana-token", "Asana access token", medium, `[12]/[0-9]{16}(?:/[0-9]{16})?:[0-9a-f]{32}`, "asana"),
		token("typeform-token", "Typeform access token", medium, newAlphabet(digits, lower, upper, "_-.="), 59, 59, "tfp_"),
		token("contentful-token", "Contentful personal access token", medium, urlSafe, 43, 43, "CFPAT-"),
		beside("algolia-admin-key", "Algolia API key", medium, `[0-9a-f]{32}`, "algolia"),
		shaped("mapbox-secret-token", "Mapbox secret token", high, `sk\.eyJ[A-Za-z0-9_-]{40,200}\.[A-Za-z0-9_-]{22}`, "sk.eyJ"),
		{
			id: "django-secret-key", title: "Django secret key", severity: high, words: []string{"SECRET_KEY"}, ahead: 200, entropy: 3.5, where: isDjango,
			pattern: compiled(`^SECRET_KEY["']?\]?[ \t]*[=:][ \t]*["']([^"'\s]{40,80})["']`),
		},
		beside("rails-secret-key-base", "Rails secret key base", high, `[0-9a-f]{64,128}`, "secret_key_base"),
		shaped("laravel-app-key", "Laravel application key", high, `base64:[A-Za-z0-9+/]{43}=`, "base64:").in(isSettings),
		beside("symfony-app-secret", "Symfony application secret", medium, `[0-9a-f]{32}`, "app_secret").in(isSettings),
		beside("rails-master-key", "Rails master key", high, `[0-9a-f]{32}`, "rails_master_key"),
	}
}

// packageRules are tokens of package registries and image registries.
func packageRules() []rule {
	return []rule{
		token("npm-token", "npm access token", critical, alnum, 36, 36, "npm_"),
		{
			id: "npm-registry-auth", title: "login of an npm registry", severity: high, words: []string{":_authToken", ":_password", ":_auth"},
			pattern: compiled(`^:_(?:authToken|password|auth)[ \t]*=[ \t]*["']?([A-Za-z0-9+/=_.~-]{8,512})`), ahead: 600, entropy: 2.5, config: true,
		},
		token("pypi-token", "PyPI upload token", critical, urlSafe, 70, 500, "pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZw"),
		token("rubygems-token", "RubyGems API key", critical, hexLower, 48, 48, "rubygems_"),
		token("nuget-api-key", "NuGet API key", critical, alnumLow, 43, 43, "oy2"),
		token("crates-io-token", "crates.io API token", critical, alnum, 32, 32, "cio"),
		token("clojars-token", "Clojars deploy token", high, alnumLow, 60, 60, "CLOJARS_"),
		shaped("packagist-token", "Packagist token", high, `packagist_(?:ac|or|uo|uu)[ru]?[t]_[0-9a-f]{62,70}`, "packagist_"),
		token("docker-hub-pat", "Docker Hub access token", critical, urlSafe, 27, 32, "dckr_pat_", "dckr_oat_"),
		{
			id: "registry-login", title: "login of an image registry", severity: high, words: []string{`"auth"`},
			pattern: compiled(`^"auth"\s*:\s*"([A-Za-z0-9+/]{12,1000}={0,2})"`), ahead: 1100, entropy: 2.5, where: isDockerConfig, lines: true,
		},
		token("artifactory-api-key", "JFrog Artifactory API key", high, alnum, 69, 69, "AKCp"),
		token("artifactory-reference-token", "JFrog Artifactory reference token", high, alnum, 56, 56, "cmVmdGtu"),
		beside("cloudsmith-token", "Cloudsmith API key", high, `[0-9a-f]{40}`, "cloudsmith"),
		beside("gemfury-token", "Gemfury token", medium, `[A-Za-z0-9]{20}`, "gemfury", "fury_token"),
		token("huggingface-token", "Hugging Face access token", high, letters, 34, 34, "hf_"),
		token("huggingface-organization-token", "Hugging Face organization token", high, letters, 34, 34, "api_org_"),
		{
			id: "netrc-password", title: "password in a .netrc file", severity: high, words: []string{"password"},
			pattern: compiled(`^password[ \t]+([^\s"']{4,256})`), ahead: 300, entropy: 1.5, where: isNetrc,
		},
		{
			id: "pgpass-password", title: "password in a .pgpass file", severity: high, words: []string{":5432:", ":5433:", ":6432:", ":*:*:"},
			pattern: compiled(`^:(?:[0-9]+|\*):(?:[^:\s]+:){2}([^\s:]{3,256})`), ahead: 400, entropy: 1, where: isPgpass,
		},
		{
			id: "shadow-password", title: "password hash of an account", severity: high, words: []string{":$6$", ":$5$", ":$1$", ":$y$", ":$2a$", ":$2b$", ":$2y$", ":$7$", ":$apr1$"},
			pattern: compiled(`^:\$(?:[1567y]|2[aby]|apr1)\$([^\s:]{8,256})`), ahead: 400, entropy: 2.5, where: isPasswords,
			fix: "Set no password in the image: lock the account (passwd -l), or set one when the container runs. The hash can be tried offline by everybody who has the image.",
		},
	}
}
