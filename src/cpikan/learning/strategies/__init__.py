"""Strategies: how fields are made, placed and exchanged on the way to a solution."""
