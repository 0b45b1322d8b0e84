"""Verbs of jobs, one file each; `VERB` of the file is the verb."""
