"""Networks trained on simulated and measured stacks."""
