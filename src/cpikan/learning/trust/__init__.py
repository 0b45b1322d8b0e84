"""Trust: whether a solution can be believed, from evidence that the solve did not use."""
