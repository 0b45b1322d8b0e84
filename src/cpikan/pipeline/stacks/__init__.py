"""Stacks of frames and what is known of their acquisition."""
