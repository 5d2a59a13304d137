package witness

// ParseRequest reads the body of add-checkpoint.
var ParseRequest = parseRequest

// WriteRequest writes it.
var WriteRequest = writeRequest
