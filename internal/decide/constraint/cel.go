package constraint

// compileCEL refuses code that nothing here can evaluate.
func (r *reader) compileCEL(_ *template, src source) engine {
	r.problem(src.field, "code for the engine "+engineCEL+" is not evaluated", "give the template code for the engine "+engineRego+", too")
	return nil
}
