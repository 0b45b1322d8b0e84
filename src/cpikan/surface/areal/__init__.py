"""Areal surface numbers of ISO 25178-2 that need a whole map at once: functional, spatial, and of features."""
