"""Samples and pictures that are no measurement."""
