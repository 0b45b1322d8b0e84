"""Readers of frames, one form of a stack a file; ``open.py`` chooses among them."""
