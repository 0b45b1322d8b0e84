"""Few or bad frames: steps, tilts, light and a smooth surface fitted to the raw samples of a subsample together."""
