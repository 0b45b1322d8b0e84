"""Where residuals are taken: points that stay, and points that move or weigh by the residuals of the field."""
