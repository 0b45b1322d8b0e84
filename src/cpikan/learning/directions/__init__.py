"""Directions: one direction of descent from the gradients of all terms."""
