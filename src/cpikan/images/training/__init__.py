"""Training of image models: what is asked (config), how a step is made, when it stops, and what is kept of it."""
