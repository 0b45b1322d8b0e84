"""Levelling and surface numbers."""
