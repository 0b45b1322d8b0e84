"""Wafer numbers of stored maps, streamed."""
