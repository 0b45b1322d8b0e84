"""Frames on disk to a height map on disk: composes the rooms below."""
