package content

// RestoreHash goes on with a stored hash.
var RestoreHash = restoreHash
