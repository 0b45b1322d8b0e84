"""Residuals: what the physics says of a field."""
