"""Surfaces, instruments and faults."""
