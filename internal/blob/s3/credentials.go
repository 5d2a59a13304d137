package s3

import (
	"net/http"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// findCredentials looks, in this order, for AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN), for the file that
// AWS_SHARED_CREDENTIALS_FILE names (with AWS_PROFILE), and for the identity that
// the platform gives: a web identity token (Kubernetes service accounts), a
// container's or, for Amazon's own endpoint, the machine's role. Those are
// fetched through the same transport, and renewed before they run out.
func findCredentials(p place, getenv func(string) string, transport http.RoundTripper) (*credentials.Credentials, error) {
	id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		return credentials.NewStaticV4(id, secret, getenv("AWS_SESSION_TOKEN")), nil
	case id != "" || secret != "":
		return nil, invalid("one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set without the other")
	}
	if file := getenv("AWS_SHARED_CREDENTIALS_FILE"); file != "" {
		profile := getenv("AWS_PROFILE")
		if profile == "" {
			profile = "default"
		}
		creds := credentials.NewFileAWSCredentials(file, profile)
		if _, err := creds.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: transport}}); err != nil {
			return nil, invalid("profile %q of the credentials file cannot be used: %w", profile, err).WithHint("correct AWS_SHARED_CREDENTIALS_FILE or AWS_PROFILE")
		}
		return creds, nil
	}
	platform := p.amazon
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		platform = platform || getenv(name) != ""
	}
	if !platform {
		return nil, invalid("there are no credentials").WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE")
	}
	iam := &credentials.IAM{Client: &http.Client{Transport: transport}, Region: p.region}
	iam.Container.AuthorizationToken = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	iam.Container.CredentialsRelativeURI = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
	iam.Container.CredentialsFullURI = getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	iam.EKSIdentity.TokenFile = getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
	iam.EKSIdentity.RoleARN = getenv("AWS_ROLE_ARN")
	iam.EKSIdentity.RoleSessionName = getenv("AWS_ROLE_SESSION_NAME")
	return credentials.New(iam), nil
}
