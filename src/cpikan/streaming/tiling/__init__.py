"""Overlap-tile inference: models over images of any size, streamed tile row by tile row."""
