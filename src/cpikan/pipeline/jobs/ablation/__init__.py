"""Which parts of a solve help: the same problems and seeds with and without each."""
