"""Simulated stacks on disk."""
