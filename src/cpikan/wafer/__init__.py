"""Wafer numbers: where a wafer lies on a map, and its flatness, shape, near-edge geometry and nanotopography."""
