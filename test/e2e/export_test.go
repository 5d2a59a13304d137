package e2e

// TryKube is one attempt of StartKube.
var TryKube = startKube

// AdminPassword is that of every server that a test starts.
const AdminPassword = adminPassword
