"""Balancers: weights of the terms of an objective, and of their points, found and changed on the way."""
