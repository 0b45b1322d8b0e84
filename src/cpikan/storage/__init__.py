"""Readers and writers; knows files, not physics."""
