"""The stages of a reconstruction, one file each; the plan puts them in order."""
