"""Methods: one step of a minimisation each, with a state that is plain data."""
