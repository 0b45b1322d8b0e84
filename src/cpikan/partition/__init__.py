"""Boxes and windows: tiles of an image are subdomains of a network."""
