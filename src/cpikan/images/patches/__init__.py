"""Patches of giant maps and frames for training: windows of memory maps, never whole frames."""
