"""Work described by plain data: verb, source, output and settings."""
