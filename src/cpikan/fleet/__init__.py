"""Many stacks: batches on this machine or a cluster, their ledger, their results as data."""
