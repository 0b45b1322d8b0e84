"""What a frame is: acquisition, forward model, schemes, noise, flags."""
