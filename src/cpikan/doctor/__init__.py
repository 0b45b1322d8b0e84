"""What of this machine makes runs slow or stops them."""
