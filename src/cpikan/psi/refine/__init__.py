"""Refiners: what neighbours know about a pixel that the pixel alone does not."""
