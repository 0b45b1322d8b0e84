"""Stacks submitted over HTTP: a bounded queue that survives a restart, and the answers about it."""
