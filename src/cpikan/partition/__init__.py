"""Boxes and windows: the tiles of an image and the subdomains of a network are one family."""

from __future__ import annotations

from cpikan.partition.intervals import Intervals as Intervals
from cpikan.partition.partition import Box as Box
from cpikan.partition.partition import Partition as Partition
