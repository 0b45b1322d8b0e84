"""Images and frames that moved."""
