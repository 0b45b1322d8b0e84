"""Surface numbers that are sums, over bands of rows."""
