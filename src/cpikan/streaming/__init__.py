"""Bands, queues, journal, progress: the one engine that all loops over an image run on."""
