"""Frames to a height map on disk."""
