"""Calibration: a subsample of the frames gives the model of the pixels, with steps, noise, alignment and orders."""
