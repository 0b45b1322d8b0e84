"""Height maps: opening, comparing, measuring."""
