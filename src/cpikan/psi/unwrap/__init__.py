"""Fringe orders of one wavelength."""
