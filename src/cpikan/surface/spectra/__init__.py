"""Correlation and spectra of surfaces: autocorrelation, power spectral density, and fits of it."""
