"""Profiles of a map: where they run, their numbers by ISO 21920-2, and the heights of steps by ISO 5436-1."""
