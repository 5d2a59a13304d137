package e2e

// TryKube is one attempt of StartKube.
var TryKube = startKube
