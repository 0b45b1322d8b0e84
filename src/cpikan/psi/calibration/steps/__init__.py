"""Parts of the joint fit of frames and pixels: parameters, model, normal equations, iterations, selection of effects."""
