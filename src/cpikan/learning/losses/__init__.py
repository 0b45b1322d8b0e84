"""What is minimised: the equation's residuals, an energy, weak residuals, or residuals with their slopes."""
