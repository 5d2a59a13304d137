package verify

// IdentityOf and SCTLogs are the readers of certificates.
var (
	IdentityOf = identityOf
	SCTLogs    = sctLogs
)
