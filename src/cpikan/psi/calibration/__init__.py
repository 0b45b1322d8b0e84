"""From a subsample of the frames to the model of the pixels: steps, noise, alignment, orders."""
