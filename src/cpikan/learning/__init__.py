"""How a field is found: least squares, robust losses and their solvers."""
