package opinion

// The parsers of foreign answers, for fuzzing.
var (
	ParseHarbor = parseHarbor
	ParseClair  = parseClair
	Indexed     = indexed
)
