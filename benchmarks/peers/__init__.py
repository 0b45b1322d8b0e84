"""Other packages on problems that this one solves: a module for each, which takes a problem, seconds and a seed."""
