"""Phase-shifting interferometry, arrays to arrays."""
